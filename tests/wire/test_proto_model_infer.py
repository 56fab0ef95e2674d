"""Serialized ModelInfer messages: every path equals `wire.proto.messages`."""

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
from mlserver.wire.proto import messages, model_infer
from mlserver.wire.proto.contents import FIELDS
from support.slow import slow

CODES = {"FP32": "f", "FP64": "d", "INT64": "q", "UINT8": "B"}


def message(
    values: list[Any], datatype: str, raw: bool, shape: tuple[int, ...] = (1,), **more: Any
) -> bytes:
    """A serialized request of one row."""
    request = pb.ModelInferRequest(model_name="m", id="7", **more)
    for index, value in enumerate(values):
        tensor = request.inputs.add(name=f"column {index}", datatype=datatype, shape=shape)
        if raw:
            request.raw_input_contents.append(struct.pack(f"<{CODES[datatype]}", value))
        else:
            getattr(tensor.contents, FIELDS[datatype]).append(value)
    return request.SerializeToString()


def shown(request: InferenceRequest) -> list[Any]:
    tensors = [
        (
            tensor.name,
            str(tensor.datatype),
            tensor.shape,
            tensor.parameters,
            bytes(tensor.data.to_raw(str(tensor.datatype), tensor.shape)),
        )
        for tensor in request.inputs
    ]
    return [request.id, request.parameters, request.outputs, *tensors]


def outcome(read: Callable[[], InferenceRequest]) -> list[Any] | str:
    """The content of a request, or the text of its error."""
    try:
        return shown(read())
    except (DecodeError, InvalidPayload):
        return "no message"
    except MLServerError as error:
        return error.message


def by_messages(data: bytes) -> InferenceRequest:
    return messages.read_request(pb.ModelInferRequest.FromString(data))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("datatype", CODES)
def test_one_row_is_a_row_block(datatype: str, raw: bool, shape: tuple[int, ...]) -> None:
    data = message([1, 2, 3], datatype, raw, shape)
    received = model_infer.read_request(data)

    assert received.request.rows is not None
    assert (received.model_name, received.model_version, received.raw) == ("m", "", raw)
    assert shown(received.request) == shown(by_messages(data))


NAMES = [
    "",
    "n",
    "\u00e9" * 63,
    "n" * 127,
    "n" * 128,
    "n" * 300,
    "\x12\x04FP64\x1a\x01\x01*\n:\x08",
]


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: str(len(name)))
def test_names_of_one_row(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    changed = pb.ModelInferRequest.FromString(message([1, 2], datatype, False, shape))
    changed.inputs[1].name = name
    data = changed.SerializeToString()
    received = model_infer.read_request(data).request

    assert received.rows is not None
    assert received.rows.names[1] == name
    assert shown(received) == shown(by_messages(data))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_floats_are_not_read_field_by_field(
    datatype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_infer, "_pack_typed", None)
    row = model_infer.read_request(message([1, 2.5], datatype, False, shape)).request.rows
    assert row is not None
    assert struct.unpack(f"<2{CODES[datatype]}", row.block) == (1, 2.5)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.inputs[0].shape.append(1),
        lambda message: message.inputs[0].parameters["k"].ClearField("bool_param"),
        lambda message: message.inputs[1].contents.int_contents.append(1),
        lambda message: message.inputs[1].contents.fp32_contents.append(1),
        lambda message: message.inputs[1].ClearField("contents"),
        lambda message: setattr(message.inputs[1], "datatype", "FP64"),
        lambda message: message.raw_input_contents.append(b"\0" * 4),
        lambda message: message.raw_input_contents.extend([b"\0" * 4] * 2),
        lambda message: message.ClearField("inputs"),
    ],
)
def test_other_requests_are_read_by_the_messages(
    change: Callable[[pb.ModelInferRequest], Any],
) -> None:
    changed = pb.ModelInferRequest.FromString(message([1, 2], "FP32", False))
    change(changed)
    data = changed.SerializeToString()

    assert model_infer.read_row(changed) is None
    assert outcome(lambda: model_infer.read_request(data).request) == outcome(
        lambda: by_messages(data)
    )


@given(st.data())
def test_changed_bytes_of_one_row(data: st.DataObject) -> None:
    """A mutated request of one row gives the request or the error that the messages give."""
    datatype, raw = data.draw(
        st.sampled_from([("FP32", False), ("FP64", False), ("FP32", True), ("UINT8", True)])
    )
    original = message([1, 2], datatype, raw)
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.integers(0, len(original) - 1))
        changed[index] = data.draw(st.integers(0, 255))
    is_cut = data.draw(st.booleans())
    body = bytes(changed[: data.draw(st.integers(0, len(original)))] if is_cut else changed)

    assert outcome(lambda: model_infer.read_request(body).request) == outcome(
        lambda: by_messages(body)
    )


@pytest.mark.parametrize(
    ("raws", "received"),
    [
        ([b"\0" * 4], "1 entries"),
        ([b"\0" * 4] * 3, "3 entries"),
        ([b"\0" * 4, b"\0" * 8], "8 bytes"),
        ([], "0"),
    ],
)
def test_one_row_with_other_raw_contents(raws: list[bytes], received: str) -> None:
    changed = pb.ModelInferRequest.FromString(message([1, 2], "FP32", True))
    changed.raw_input_contents[:] = raws
    with pytest.raises(MLServerError, match=received):
        model_infer.read_request(changed.SerializeToString())


def test_number_out_of_range() -> None:
    with pytest.raises(MLServerError, match="numbers in the range of UINT8"):
        model_infer.read_request(message([300], "UINT8", False))


@pytest.mark.parametrize("raw", [True, False])
def test_parameters_and_outputs_beside_one_row(raw: bool) -> None:
    parameters = {"priority": pb.InferParameter(int64_param=2)}
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name="y")]
    data = message([1], "FP32", raw, parameters=parameters, outputs=outputs)
    received = model_infer.read_request(data).request

    assert received.rows is not None
    assert received.parameters is not None
    assert received.outputs is not None
    assert shown(received) == shown(by_messages(data))


def test_no_message() -> None:
    with pytest.raises(InvalidPayload, match="Invalid message"):
        model_infer.read_request(b"\x0a\xff")


# -- large requests --


def large(*sizes: int) -> pb.ModelInferRequest:
    """A request with raw contents of these sizes."""
    request = pb.ModelInferRequest(model_name="m", id="7")
    for index, size in enumerate(sizes):
        request.inputs.add(name=f"n{index}", datatype="UINT8", shape=[size])
        request.raw_input_contents.append(bytes([index % 256]) * size)
    return request


@pytest.mark.parametrize(
    "sizes", [(100_000,), (70_000, 0, 3), (*[1] * 200, 70_000)], ids=["one", "some", "many"]
)
def test_large_raw_contents(sizes: tuple[int, ...]) -> None:
    data = large(*sizes).SerializeToString()
    received = model_infer.read_request(data)

    assert received.raw
    assert shown(received.request) == shown(by_messages(data))


def test_large_raw_contents_are_not_copied() -> None:
    data = large(100_000).SerializeToString()
    raw = model_infer.read_request(data).request.inputs[0].data.raw

    assert isinstance(raw, memoryview)
    assert raw.obj is data


@given(st.data())
def test_changed_bytes_of_a_large_request(data: st.DataObject) -> None:
    """Mutated fields around the contents give the request or the error that the messages give."""
    original = large(70_000, 3).SerializeToString()
    edges = [*range(60), *range(len(original) - 10, len(original))]
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.sampled_from(edges))] = data.draw(st.integers(0, 255))
    body = bytes(changed[: data.draw(st.sampled_from([len(original), len(original) - 1, 70_020]))])

    assert outcome(lambda: model_infer.read_request(body).request) == outcome(
        lambda: by_messages(body)
    )


@pytest.mark.parametrize("count", [5_000, slow(30_000)])
def test_a_large_message_of_many_fields(count: int) -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\1"] * count)
    for number in range(count):
        request.inputs.add(name=str(number), datatype="UINT8", shape=[1])
    data = request.SerializeToString()

    assert shown(model_infer.read_request(data).request) == shown(by_messages(data))


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
        written = pb.ModelInferResponse.FromString(model_infer.write_response(response, raw))
        assert written.SerializeToString(deterministic=True) == messages.write_response(
            response, raw
        ).SerializeToString(deterministic=True)


@pytest.mark.parametrize("raw", [True, False])
def test_output_that_does_not_fit_its_shape(raw: bool) -> None:
    output = ResponseOutput(name="a", shape=[3], datatype="FP32", data=TensorData([1, 2]))
    with pytest.raises(
        MLServerError, match="The model's answer is not valid: Invalid data of tensor 'a'"
    ) as error:
        model_infer.write_response(InferenceResponse(model_name="m", outputs=[output]), raw)
    assert error.value.status_code == 500


@pytest.mark.parametrize("raw", [True, False])
def test_missing_text_is_empty_and_its_position_a_parameter(raw: bool) -> None:
    output = ResponseOutput(name="a", shape=[2], datatype="BYTES", data=["x", None])
    written = model_infer.write_response(InferenceResponse(model_name="m", outputs=[output]), raw)
    message = pb.ModelInferResponse.FromString(written)
    assert message.outputs[0].parameters["missing"].string_param == "[1]"
    assert messages.read_response(message).outputs[0].data.root == [b"x", None]


def large_output(name: str, datatype: str, count: int, **more: Any) -> ResponseOutput:
    numbers = [float(number % 2) for number in range(count)]
    data: Any = [bool(number) for number in numbers] if datatype == "BOOL" else numbers
    return ResponseOutput(name=name, shape=[count], datatype=datatype, data=data, **more)


@pytest.mark.parametrize("others", [(), ("INT64",), ("BOOL", "empty"), ("BYTES",)], ids=str)
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "BOOL"])
def test_large_typed_contents(datatype: str, others: tuple[str, ...]) -> None:
    """Packed contents are written behind the message, and are those of the message."""
    count = 70_000
    outputs = [large_output("large", datatype, count, parameters={"k": 2})]
    for other in others:
        outputs.append({**OUTPUTS, "empty": large_output("empty", "FP64", 0)}[other])
    response = InferenceResponse(model_name="m", id="7", outputs=outputs)
    written = pb.ModelInferResponse.FromString(model_infer.write_response(response))
    assert written == messages.write_response(response)
    field = FIELDS[datatype]
    assert len(getattr(written.outputs[0].contents, field)) == count


def test_a_large_output_that_does_not_fit_its_shape() -> None:
    output = large_output("a", "FP64", 20_000).model_copy(update={"shape": [20_001]})
    with pytest.raises(MLServerError, match="Invalid data of tensor 'a'"):
        model_infer.write_response(InferenceResponse(model_name="m", outputs=[output]))
