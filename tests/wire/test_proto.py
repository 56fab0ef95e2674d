"""Protobuf messages: every datatype in typed and raw contents, parameters, errors."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import InvalidInput, MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import messages
from mlserver.wire.proto.contents import FIELDS

# Datatype -> values with the extremes of its range.
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "UINT8": [0, 1, 127, 255],
    "UINT16": [0, 1, 2, 65535],
    "UINT32": [0, 1, 2, 2**32 - 1],
    "UINT64": [0, 1, 2**53 + 1, 2**64 - 1],
    "INT8": [-128, -1, 0, 127],
    "INT16": [-(2**15), -1, 0, 2**15 - 1],
    "INT32": [-(2**31), -1, 0, 2**31 - 1],
    "INT64": [-(2**63), -1, 2**53 + 1, 2**63 - 1],
    "FP16": [0.5, -0.0, 65504.0, float("inf")],
    "FP32": [1.5, -0.0, 2.0**-149, float("-inf")],
    "FP64": [0.1, -0.0, 5e-324, float("inf")],
    "BYTES": [b"", b"\x00\xff", "snow \u2603".encode(), b"a" * 300],
}
TYPED = [name for name in VALUES if name != "FP16"]


def request(datatype: str, values: list[Any], shape: list[int] | None = None) -> InferenceRequest:
    tensor = RequestInput(
        name="x", shape=shape or [len(values)], datatype=datatype, data=TensorData(values)
    )
    return InferenceRequest(inputs=[tensor])


def message(*tensors: dict[str, Any], raw: tuple[bytes, ...] = ()) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", inputs=list(tensors), raw_input_contents=raw)


def over_the_wire(sent: pb.ModelInferRequest) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(sent.SerializeToString())


@pytest.mark.parametrize("repeat", [1, 20])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_there_and_back(datatype: str, raw: bool, repeat: int) -> None:
    values = VALUES[datatype] * repeat
    sent = over_the_wire(
        messages.write_request(request(datatype, values, [2, len(values) // 2]), "m", "v", raw=raw)
    )

    received = messages.read_request(sent)

    assert messages.uses_raw(sent) is (raw or datatype == "FP16")
    assert received.inputs[0].shape == [2, len(values) // 2]
    assert str(received.inputs[0].datatype) == datatype
    assert list(received.inputs[0].data) == values


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_responses_use_the_field_of_their_datatype(datatype: str) -> None:
    output = ResponseOutput(
        name="y", shape=[4], datatype=datatype, data=TensorData(VALUES[datatype])
    )
    sent = messages.write_response(InferenceResponse(model_name="m", outputs=[output]))

    assert [field.name for field, _ in sent.outputs[0].contents.ListFields()] == [FIELDS[datatype]]
    assert messages.read_response(sent).outputs[0].data == VALUES[datatype]


def test_one_raw_datatype_makes_the_whole_response_raw() -> None:
    outputs = [
        ResponseOutput(name="half", shape=[1], datatype="FP16", data=TensorData([0.5])),
        ResponseOutput(name="text", shape=[1], datatype="BYTES", data=TensorData(["a"])),
    ]
    sent = messages.write_response(InferenceResponse(model_name="m", outputs=outputs))

    assert list(sent.raw_output_contents) == [struct.pack("<e", 0.5), b"\x01\x00\x00\x00a"]
    assert [output.data.root for output in messages.read_response(sent).outputs] == [[0.5], [b"a"]]


def test_bfloat16_is_sent_raw_and_widened() -> None:
    received = messages.read_request(
        message({"name": "x", "datatype": "BF16", "shape": [1]}, raw=(b"\x80\x3f",))
    )

    assert received.inputs[0].data.to_array("BF16", [1]).tolist() == [1.0]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_none_from_a_model_is_nan(datatype: str, raw: bool) -> None:
    output = ResponseOutput(name="y", shape=[2], datatype=datatype, data=TensorData([None, 1.0]))
    sent = messages.write_response(InferenceResponse(model_name="m", outputs=[output]), raw=raw)
    received = messages.read_response(sent).outputs[0].data.to_array(datatype, [2])

    np.testing.assert_array_equal(received, [np.nan, 1.0])


@pytest.mark.parametrize("raw", [False, True])
def test_an_array_is_written_without_a_list(raw: bool) -> None:
    data = TensorData.from_array(np.arange(200, dtype="f4").reshape(20, 10))
    output = ResponseOutput(name="y", shape=[20, 10], datatype="FP32", data=data)
    sent = messages.write_response(InferenceResponse(model_name="m", outputs=[output]), raw=raw)

    assert "root" not in data.representations
    assert messages.read_response(sent).outputs[0].data == list(range(200))


@pytest.mark.parametrize("raw", [False, True])
def test_numbers_never_become_a_list(raw: bool) -> None:
    sent = messages.write_request(request("FP32", [0.5] * 100), "m", raw=raw)

    assert "root" not in messages.read_request(sent).inputs[0].data.representations


@pytest.mark.parametrize("raw", [False, True])
def test_empty_tensors_and_scalars(raw: bool) -> None:
    inputs = [
        RequestInput(name="empty", shape=[0, 3], datatype="FP32", data=TensorData([])),
        RequestInput(name="scalar", shape=[], datatype="INT64", data=TensorData([7])),
        RequestInput(name="none", shape=[0], datatype="BYTES", data=TensorData([])),
    ]
    sent = over_the_wire(messages.write_request(InferenceRequest(inputs=inputs), "m", raw=raw))

    assert [tensor.data.root for tensor in messages.read_request(sent).inputs] == [[], [7], []]


# -- what is refused --

FP32 = {"name": "x", "datatype": "FP32", "shape": [2]}
REFUSED: dict[str, tuple[pb.ModelInferRequest, str]] = {
    "fewer raw entries": (
        message(FP32, FP32, raw=(bytes(8),)),
        "one entry for each of the 2 tensors",
    ),
    "more raw entries": (message(FP32, raw=(bytes(8), bytes(8))), "received 2 entries"),
    "raw and typed": (
        message({**FP32, "contents": {"fp32_contents": [1, 2]}}, raw=(bytes(8),)),
        "either raw or typed contents",
    ),
    "raw too short": (message(FP32, raw=(bytes(7),)), "8 bytes for FP32 \\[2\\], received 7"),
    "raw too long": (message(FP32, raw=(bytes(9),)), "received 9 bytes"),
    "typed too few": (message({**FP32, "contents": {"fp32_contents": [1]}}), "2 elements"),
    "no contents": (message(FP32), "2 elements for shape \\[2\\], received 0"),
    "wrong field": (
        message({**FP32, "contents": {"int_contents": [1, 2]}}),
        "FP32 in contents.fp32_contents",
    ),
    "two fields": (
        message({**FP32, "contents": {"int_contents": [1, 2], "fp32_contents": [1, 2]}}),
        "received contents.int_contents",
    ),
    "typed FP16": (
        message(
            {"name": "x", "datatype": "FP16", "shape": [1], "contents": {"bytes_contents": [b"ab"]}}
        ),
        "FP16 in raw_input_contents",
    ),
    "no datatype": (message({"name": "x", "shape": [1]}), "datatype of tensor 'x'"),
    "unknown datatype": (
        message({"name": "x", "datatype": "fp32", "shape": [1]}),
        "received 'fp32'",
    ),
    "300 in INT8": (
        message(
            {"name": "x", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}
        ),
        "numbers in the range of INT8",
    ),
    "300 in many INT8": (
        message(
            {
                "name": "x",
                "datatype": "INT8",
                "shape": [99],
                "contents": {"int_contents": [300] * 99},
            }
        ),
        "numbers in the range of INT8",
    ),
    "negative dimension": (
        message({"name": "x", "datatype": "INT8", "shape": [-1]}, raw=(b"a",)),
        "non-negative",
    ),
    "huge shape": (
        message({"name": "x", "datatype": "INT8", "shape": [2**40, 2**40]}),
        "held in memory",
    ),
    "huge raw shape": (
        message({"name": "x", "datatype": "INT8", "shape": [2**62]}, raw=(b"",)),
        "held in memory",
    ),
    "deep shape": (
        message({"name": "x", "datatype": "INT8", "shape": [1] * 33}, raw=(b"a",)),
        "32 dimensions",
    ),
    "BYTES past the end": (
        message({"name": "x", "datatype": "BYTES", "shape": [1]}, raw=(b"\xff\xff\xff\xffab",)),
        "BYTES elements inside the data",
    ),
    "content_type": (
        pb.ModelInferRequest(parameters={"content_type": pb.InferParameter(int64_param=1)}),
        "parameter 'content_type'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    sent, text = REFUSED[case]
    with pytest.raises(InvalidInput, match=text) as refusal:
        messages.read_request(sent)
    assert refusal.value.code == "INVALID_ARGUMENT"
    assert len(refusal.value.message) < 500


def test_empty_typed_contents_beside_raw_are_allowed() -> None:
    sent = message({**FP32, "contents": {}}, raw=(bytes(8),))

    assert messages.read_request(sent).inputs[0].data == [0.0, 0.0]


def test_an_invalid_response_is_a_server_error() -> None:
    output = ResponseOutput(name="y", shape=[3], datatype="FP32", data=TensorData([1.0]))
    with pytest.raises(MLServerError, match="tensor 'y'") as error:
        messages.write_response(InferenceResponse(model_name="m", outputs=[output]))
    assert error.value.code == "INTERNAL"


def read(data: bytes) -> InferenceRequest | None:
    """The request of these bytes, or None if they are refused."""
    try:
        return messages.read_request(pb.ModelInferRequest.FromString(data))
    except (DecodeError, InvalidInput):
        return None


def test_truncated_messages_never_pass_as_another_request() -> None:
    whole = messages.write_request(request("FP32", [1.0, 2.0]), "m", raw=True).SerializeToString()
    for size in range(len(whole)):
        cut = read(whole[:size])
        assert cut is None or cut.inputs == []


# -- parameters --


def test_parameters_keep_their_types() -> None:
    values = {
        "yes": True,
        "no": False,
        "int": -(2**63),
        "big": 2**64 - 1,
        "float": 0.25,
        "text": "t",
        "empty": "",
    }
    sent = over_the_wire(
        messages.write_request(
            InferenceRequest(inputs=[], parameters=Parameters(**values, content_type="np")), "m"
        )
    )
    received = messages.read_request(sent).parameters

    assert received is not None
    assert received.content_type == "np"
    assert received.model_extra == values
    assert {key: type(value) for key, value in received.model_extra.items()} == {
        k: type(v) for k, v in values.items()
    }


@pytest.mark.parametrize(
    "value, text",
    [
        ([1, "a"], '[1, "a"]'),
        ({"k": None}, '{"k": null}'),
        (2**70, str(2**70)),
        (b"abc", "abc"),
        (np.float32(0.5), 0.5),
        (np.array([3]), 3),
    ],
)
def test_other_values_are_json_text(value: Any, text: Any) -> None:
    sent = pb.ModelInferResponse()
    messages.write_parameters(sent.parameters, Parameters(p=value, left_out=None))

    received = messages.read_parameters(sent.parameters)
    assert received is not None
    assert received.model_extra == {"p": text}


def test_headers_are_metadata_not_a_parameter() -> None:
    sent = pb.ModelInferRequest(parameters={"headers": pb.InferParameter(string_param="x")})
    received = messages.read_request(sent).parameters
    assert received is not None
    assert received.headers is None

    written = messages.write_response(
        InferenceResponse(model_name="m", outputs=[], parameters=Parameters(headers={"a": "b"}))
    )
    assert dict(written.parameters) == {}


def test_ids_versions_and_requested_outputs() -> None:
    expected = InferenceRequest(
        id="7",
        inputs=[],
        outputs=[RequestOutput(name="y", parameters=Parameters(content_type="str"))],
    )
    sent = messages.write_request(expected, "m", "v2")
    assert (sent.model_name, sent.model_version, sent.id) == ("m", "v2", "7")

    received = messages.read_request(sent)
    assert received == expected
    assert messages.read_request(pb.ModelInferRequest()).id is None
    assert messages.read_response(pb.ModelInferResponse()).id is None


@given(st.binary(max_size=200))
def test_random_bytes_are_a_request_or_refused(data: bytes) -> None:
    received = read(data)
    assert received is None or isinstance(received.inputs, list)


@given(
    st.lists(st.sampled_from(["BOOL", "INT8", "UINT32", "FP32", "BYTES", "FP16", ""]), max_size=3),
    st.lists(st.lists(st.integers(-2, 4), max_size=3), min_size=3, max_size=3),
    st.lists(st.binary(max_size=20), max_size=3),
)
def test_random_raw_requests_are_read_or_refused(
    datatypes: list[str], shapes: list[list[int]], raw: list[bytes]
) -> None:
    tensors = [
        {"name": str(index), "datatype": datatype, "shape": shapes[index]}
        for index, datatype in enumerate(datatypes)
    ]
    received = read(message(*tensors, raw=tuple(raw)).SerializeToString())
    if received is not None:
        assert len(received.inputs) == len(datatypes)
        assert all(tensor.data.raw is not None for tensor in received.inputs) or not raw
