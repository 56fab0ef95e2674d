"""ModelInfer in bytes says what the messages say: known layouts, strange ones, and bytes changed on the way."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import InvalidPayload, MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    ResponseOutput,
    TensorData,
)
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import fast_messages, messages
from mlserver.wire.proto.contents import FIELDS

CODES = {"FP32": "f", "FP64": "d", "INT64": "q", "UINT8": "B"}


def message(
    values: list[Any], datatype: str, raw: bool, shape: tuple[int, ...] = (1,), **more: Any
) -> bytes:
    """A request of one row."""
    made = pb.ModelInferRequest(model_name="m", id="7", **more)
    for at, value in enumerate(values):
        tensor = made.inputs.add(name=f"column {at}", datatype=datatype, shape=shape)
        if raw:
            made.raw_input_contents.append(struct.pack(f"<{CODES[datatype]}", value))
        else:
            getattr(tensor.contents, FIELDS[datatype]).append(value)
    return made.SerializeToString()


def shown(request: InferenceRequest) -> list[Any]:
    tensors = [
        (
            one.name,
            str(one.datatype),
            one.shape,
            one.parameters,
            bytes(one.data.to_raw(str(one.datatype), one.shape)),
        )
        for one in request.inputs
    ]
    return [request.id, request.parameters, request.outputs, *tensors]


def outcome(read: Callable[[], InferenceRequest]) -> list[Any] | str:
    """What a request says, or what is wrong with it."""
    try:
        return shown(read())
    except (DecodeError, InvalidPayload):
        return "no message"
    except MLServerError as error:
        return error.message


def by_messages(data: bytes) -> InferenceRequest:
    return messages.read_request(pb.ModelInferRequest.FromString(data))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", False), ("FP64", False), ("FP32", True), ("FP64", True), ("INT64", True)],
)
def test_a_layout_is_known_from_the_second_time(
    datatype: str, raw: bool, shape: tuple[int, ...]
) -> None:
    for values in ([1, 2, 3], [4, 0, -6]):
        data = message(values, datatype, raw, shape)
        received = fast_messages.read_request(data)

    assert received.request.rows is not None
    assert (received.model_name, received.model_version, received.raw) == ("m", "", raw)
    assert shown(received.request) == shown(by_messages(data))


@given(st.data())
def test_bytes_changed_on_the_way(data: st.DataObject) -> None:
    """Whatever arrives in place of a request whose layout is known is read as the messages read it."""
    datatype, raw = data.draw(
        st.sampled_from([("FP32", False), ("FP64", False), ("FP32", True), ("UINT8", True)])
    )
    known = message([1, 2], datatype, raw)
    fast_messages.read_request(known)
    changed = bytearray(known)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(known) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(
        changed[: data.draw(st.integers(0, len(known)))] if data.draw(st.booleans()) else changed
    )

    for _ in range(2):
        assert outcome(lambda: fast_messages.read_request(body).request) == outcome(
            lambda: by_messages(body)
        )


def test_an_element_that_only_looks_like_one() -> None:
    """A field may come in any order: here the bytes of an element stand at the end of the name, twice with other elements."""
    contents = pb.InferTensorContents(fp32_contents=[1.0]).SerializeToString()
    head = pb.ModelInferRequest.InferInputTensor(datatype="FP32", shape=[1]).SerializeToString()
    for tail in (b"aaaa", b"bbbb"):
        name = b"n\x2a\x06\x32\x04" + tail
        tensor = (
            head + b"\x2a" + bytes([len(contents)]) + contents + b"\x0a" + bytes([len(name)]) + name
        )
        data = b"\x0a\x01m\x2a" + bytes([len(tensor)]) + tensor
        (found,) = fast_messages.read_request(data).request.inputs
        assert (found.name, found.data.root) == (name.decode(), [1.0])


@pytest.mark.parametrize(
    ("raws", "received"),
    [
        ([b"\0" * 4], "1 entries"),
        ([b"\0" * 4] * 3, "3 entries"),
        ([b"\0" * 4, b"\0" * 8], "8 bytes"),
        ([], "0"),
    ],
)
def test_a_known_layout_with_other_contents(raws: list[bytes], received: str) -> None:
    data = message([1, 2], "FP32", True)
    fast_messages.read_request(data)
    changed = pb.ModelInferRequest.FromString(data)
    changed.raw_input_contents[:] = raws
    with pytest.raises(MLServerError, match=received):
        fast_messages.read_request(changed.SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
def test_parameters_and_outputs_beside_a_known_row(raw: bool) -> None:
    fast_messages.read_request(message([1], "FP32", raw))
    parameters = {"priority": pb.InferParameter(int64_param=2)}
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name="y")]
    data = message([1], "FP32", raw, parameters=parameters, outputs=outputs)
    received = fast_messages.read_request(data).request

    assert received.rows is not None
    assert received.parameters is not None
    assert received.outputs is not None
    assert shown(received) == shown(by_messages(data))


def test_more_layouts_than_are_kept() -> None:
    for number in range(1100):
        made = pb.ModelInferRequest(raw_input_contents=[b"\1"])
        made.inputs.add(name=f"n{number}", datatype="UINT8", shape=[1])
        (found,) = fast_messages.read_request(made.SerializeToString()).request.inputs
        assert (found.name, found.data.root) == (f"n{number}", [1])


def test_no_message() -> None:
    with pytest.raises(InvalidPayload, match="Invalid message"):
        fast_messages.read_request(b"\x0a\xff")


# -- large requests --


def large(*sizes: int) -> pb.ModelInferRequest:
    """A request with so many bytes of raw contents."""
    made = pb.ModelInferRequest(model_name="m", id="7")
    for at, size in enumerate(sizes):
        made.inputs.add(name=f"n{at}", datatype="UINT8", shape=[size])
        made.raw_input_contents.append(bytes([at]) * size)
    return made


@pytest.mark.parametrize(
    "sizes", [(100_000,), (70_000, 0, 3), (*[1] * 200, 70_000)], ids=["one", "some", "many"]
)
def test_large_raw_contents(sizes: tuple[int, ...]) -> None:
    data = large(*sizes).SerializeToString()
    received = fast_messages.read_request(data)

    assert received.raw
    assert shown(received.request) == shown(by_messages(data))


def test_large_raw_contents_are_not_copied() -> None:
    data = large(100_000).SerializeToString()
    raw = fast_messages.read_request(data).request.inputs[0].data.raw

    assert isinstance(raw, memoryview)
    assert raw.obj is data


@given(st.data())
def test_large_bytes_changed_on_the_way(data: st.DataObject) -> None:
    """The fields around the contents, changed: read as the messages read it."""
    known = large(70_000, 3).SerializeToString()
    edges = [*range(60), *range(len(known) - 10, len(known))]
    changed = bytearray(known)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.sampled_from(edges))] = data.draw(st.integers(0, 255))
    body = bytes(changed[: data.draw(st.sampled_from([len(known), len(known) - 1, 70_020]))])

    assert outcome(lambda: fast_messages.read_request(body).request) == outcome(
        lambda: by_messages(body)
    )


def test_a_large_message_of_many_fields() -> None:
    made = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\1"] * 30_000)
    for number in range(30_000):
        made.inputs.add(name=str(number), datatype="UINT8", shape=[1])
    data = made.SerializeToString()

    assert shown(fast_messages.read_request(data).request) == shown(by_messages(data))


# -- responses --

OUTPUTS = {
    "FP32": ResponseOutput(name="a", shape=[2], datatype="FP32", data=[1.5, None]),
    "FP64": ResponseOutput(
        name="a", shape=[1, 1], datatype="FP64", data=[0.1], parameters={"content_type": "np"}
    ),
    "many": ResponseOutput(name="a", shape=[200], datatype="FP32", data=list(range(200))),
    "none": ResponseOutput(name="a", shape=[0], datatype="FP32", data=[]),
    "BOOL": ResponseOutput(name="a", shape=[2], datatype="BOOL", data=[True, False]),
    "INT64": ResponseOutput(name="a", shape=[2], datatype="INT64", data=[-1, 2]),
    "FP16": ResponseOutput(name="a", shape=[1], datatype="FP16", data=[1]),
    "BYTES": ResponseOutput(name="a", shape=[1], datatype="BYTES", data=["snow \u2603"]),
    "free": ResponseOutput(name="a", shape=[1], datatype="FP32", data=[1], parameters={"k": 2}),
}


@pytest.mark.parametrize("parameters", [None, {}, {"content_type": "np"}, {"k": [1]}], ids=repr)
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", OUTPUTS)
def test_responses(name: str, raw: bool, parameters: dict[str, Any] | None) -> None:
    response = InferenceResponse(
        model_name="m",
        model_version="1",
        id="\u2603" * 100,
        outputs=[OUTPUTS[name], OUTPUTS["FP64"]],
        parameters=None if parameters is None else Parameters(**parameters),
    )
    for _ in range(2):
        written = pb.ModelInferResponse.FromString(fast_messages.write_response(response, raw))
        assert written.SerializeToString(deterministic=True) == messages.write_response(
            response, raw
        ).SerializeToString(deterministic=True)


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_that_does_not_fit(raw: bool) -> None:
    output = ResponseOutput(name="a", shape=[3], datatype="FP32", data=TensorData([1, 2]))
    with pytest.raises(
        MLServerError, match="The model's answer is not valid: Invalid data of tensor 'a'"
    ) as problem:
        fast_messages.write_response(InferenceResponse(model_name="m", outputs=[output]), raw)
    assert problem.value.status_code == 500


@pytest.mark.parametrize("raw", [True, False])
def test_a_missing_text_is_empty_and_named(raw: bool) -> None:
    output = ResponseOutput(name="a", shape=[2], datatype="BYTES", data=["x", None])
    written = fast_messages.write_response(InferenceResponse(model_name="m", outputs=[output]), raw)
    message = pb.ModelInferResponse.FromString(written)
    assert message.outputs[0].parameters["missing"].string_param == "[1]"
    assert messages.read_response(message).outputs[0].data.root == [b"x", None]
