"""The binary tensor extension: responses, and missing texts."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    ResponseOutput,
    TensorData,
)
from mlserver.wire import binary, json_client


def test_missing_texts_are_empty_and_their_positions_a_parameter() -> None:
    output = ResponseOutput.model_validate(
        {"name": "y", "shape": [3], "datatype": "BYTES", "data": [None, "a", None]}
    )
    response = InferenceResponse(model_name="m", outputs=[output])
    parts, length = binary.write_response(response, binary.BinaryOutputs(True, {}))
    head = json.loads(bytes(parts[0]))["outputs"][0]
    assert head["parameters"] == {"missing": "[0,2]", "binary_data_size": 13}
    assert bytes(parts[1]) == bytes(4) + b"\1\0\0\0a" + bytes(4)
    read = json_client.read_response(b"".join(parts), length)
    assert read.outputs[0].data.root == [None, b"a", None]
    assert output.data.root == [None, "a", None]


@pytest.mark.parametrize("text", ["[3]", "[1]", "[-1]", "[0.5]", "0", "x", "[" * 10_000])
def test_invalid_positions(text: str) -> None:
    tensor = {
        "name": "x",
        "shape": [3],
        "datatype": "BYTES",
        "parameters": {"missing": text, "binary_data_size": 13},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + bytes(4) + b"\1\0\0\0a" + bytes(4)
    with pytest.raises(
        MLServerError, match="Invalid parameter 'missing'.*: expected a JSON list of positions"
    ):
        binary.read_request(body, len(head))


def test_missing_texts_of_a_request() -> None:
    tensor = {
        "name": "x",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"missing": "[1]", "binary_data_size": 9},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    request = binary.read_request(head + b"\1\0\0\0a" + bytes(4), len(head))
    assert request.inputs[0].data.root == [b"a", None]


def answer() -> InferenceResponse:
    outputs = [
        ResponseOutput.model_validate(
            {"name": name, "shape": shape, "datatype": name, "data": data}
        )
        for name, shape, data in [
            ("FP32", [2], TensorData.from_array(np.array([0.5, np.nan], "f4"))),
            ("BYTES", [2], TensorData(["a", b"bc"])),
            ("INT8", [1], TensorData([3])),
        ]
    ]
    outputs[0].parameters = Parameters(content_type="np")
    return InferenceResponse(model_name="m", id="1", outputs=outputs)


def all_binary(outputs: binary.BinaryOutputs | None) -> bool:
    return outputs is not None and "any output" in outputs


def parse_outputs(default: bool | None, **outputs: bool | None) -> binary.BinaryOutputs:
    """The binary outputs of a request with these flags."""
    actual = binary.pop_binary_outputs(build_request(default, **outputs))
    assert actual is not None
    return actual


def build_request(default: bool | None, **outputs: bool | None) -> InferenceRequest:
    parameters = {} if default is None else {"binary_data_output": default}
    requested = [
        {"name": name, "parameters": {} if flag is None else {"binary_data": flag}}
        for name, flag in outputs.items()
    ]
    return InferenceRequest.model_validate(
        {"inputs": [], "parameters": parameters, "outputs": requested or None}
    )


def test_all_outputs_binary() -> None:
    parts, length = binary.write_response(answer(), parse_outputs(True))
    body = b"".join(parts)
    document = json.loads(body[:length])

    assert [output["parameters"] for output in document["outputs"]] == [
        {"content_type": "np", "binary_data_size": 8},
        {"binary_data_size": 11},
        {"binary_data_size": 1},
    ]
    assert not any("data" in output for output in document["outputs"])
    assert (
        body[length:]
        == struct.pack("<2f", 0.5, float("nan")) + b"\x01\0\0\0a\x02\0\0\0bc" + b"\x03"
    )


def test_flag_of_an_output() -> None:
    parts, length = binary.write_response(
        answer(), parse_outputs(True, FP32=False, BYTES=None, INT8=True)
    )
    document = json.loads(b"".join(parts)[:length])

    assert document["outputs"][0]["data"] == [0.5, None]
    assert [output.get("parameters") for output in document["outputs"][1:]] == [
        {"binary_data_size": 11},
        {"binary_data_size": 1},
    ]
    assert [output["name"] for output in document["outputs"]] == ["FP32", "BYTES", "INT8"]


@pytest.mark.parametrize(
    "request_", [build_request(None), build_request(False), build_request(None, FP32=False)]
)
def test_json_unless_asked(request_: InferenceRequest) -> None:
    assert binary.pop_binary_outputs(request_) is None


@pytest.mark.parametrize(
    "parameters, text",
    [
        (
            {"parameters": {"binary_data_output": "yes"}},
            "'binary_data_output' of the request: expected true or false",
        ),
        (
            {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            "'binary_data' of output 'y'",
        ),
    ],
)
def test_flags_are_true_or_false(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(MLServerError, match=text):
        binary.pop_binary_outputs(InferenceRequest.model_validate({"inputs": [], **parameters}))


def test_flag_of_an_output_that_the_model_does_not_return() -> None:
    parts, length = binary.write_response(answer(), parse_outputs(None, other=True))

    assert length is None
    assert json.loads(b"".join(parts))["outputs"][1]["data"] == ["a", "bc"]


def test_the_model_does_not_receive_the_parameters() -> None:
    request_ = build_request(True, FP32=False, BYTES=True)
    binary.pop_binary_outputs(request_)

    assert request_.parameters is not None
    assert not request_.parameters.model_extra
    assert [
        output.parameters.model_extra for output in request_.outputs or () if output.parameters
    ] == [{}, {}]


def test_an_output_smaller_than_its_shape_is_an_error() -> None:
    output = ResponseOutput.model_validate(
        {"name": "y", "shape": [2], "datatype": "FP32", "data": [1.0]}
    )
    with pytest.raises(MLServerError, match="output 'y'") as error:
        binary.write_response(
            InferenceResponse(model_name="m", outputs=[output]), parse_outputs(True)
        )
    assert error.value.status_code == 500
