"""Client side of JSON and of the binary extension, against the server side."""

from __future__ import annotations

import numpy as np
import pytest

from mlserver.errors import MLServerError
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from mlserver.wire import binary, json, json_client

REQUEST = InferenceRequest(
    id="one",
    parameters=Parameters(content_type="pd", priority=3),
    inputs=[
        RequestInput(name="i", shape=[2], datatype="INT64", data=TensorData([1, -2])),
        RequestInput(
            name="f",
            shape=[2, 1],
            datatype="FP32",
            data=TensorData.from_array(np.array([[0.5], [np.nan]], "f4")),
        ),
        RequestInput(
            name="s",
            shape=[2],
            datatype="BYTES",
            data=TensorData(["ä", b"b"]),
            parameters=Parameters(content_type="str"),
        ),
    ],
    outputs=[RequestOutput(name="y")],
)
RESPONSE = InferenceResponse(
    model_name="m",
    model_version="v1",
    id="one",
    outputs=[
        ResponseOutput(name="b", shape=[2], datatype="BOOL", data=TensorData([True, False])),
        ResponseOutput(name="t", shape=[1], datatype="BYTES", data=TensorData(["text"])),
        ResponseOutput(name="h", shape=[1, 2], datatype="FP16", data=TensorData([0.5, 2.0])),
    ],
)


def test_the_server_reads_json_requests() -> None:
    read = json.read_request(json_client.write_json(REQUEST))
    assert read.id == "one"
    assert read.parameters == REQUEST.parameters
    assert [(each.name, each.shape, each.datatype) for each in read.inputs] == [
        (each.name, each.shape, each.datatype) for each in REQUEST.inputs
    ]
    assert [each.data.root for each in read.inputs] == [[1, -2], [0.5, None], ["ä", "b"]]
    assert read.inputs[2].parameters == Parameters(content_type="str")
    assert read.outputs is not None
    assert [each.name for each in read.outputs] == ["y"]


def test_the_server_reads_binary_requests() -> None:
    body, length = json_client.write_binary(REQUEST)
    read = binary.read_request(body, length)
    assert [each.data.root for each in read.inputs] == [[1, -2], [0.5, None], ["ä".encode(), b"b"]]
    assert read.inputs[2].parameters == Parameters(content_type="str")
    outputs = binary.pop_binary_outputs(read)
    assert outputs is not None
    assert "anything" in outputs
    assert read.parameters == REQUEST.parameters


def test_json_responses_are_read() -> None:
    read = json_client.read_response(json.write_response(RESPONSE))
    assert (read.model_name, read.model_version, read.id) == ("m", "v1", "one")
    assert [each.data.root for each in read.outputs] == [[True, False], ["text"], [0.5, 2.0]]


def test_binary_responses_are_read() -> None:
    parts, length = binary.write_response(
        RESPONSE, binary.BinaryOutputs(False, {"b": True, "h": True})
    )
    read = json_client.read_response(b"".join(parts), length)
    assert [each.data.root for each in read.outputs] == [[True, False], ["text"], [0.5, 2.0]]
    assert all(
        "binary_data_size" not in (each.parameters or Parameters()).to_dict()
        for each in read.outputs
    )


OUTPUT = b'"name": "x", "shape": [2], "datatype": "FP32"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model_name": "m", "outputs": 1}',
        b'{"model_name": "m", "outputs": [{%s, "data": [1]}]}' % OUTPUT,
        b'{"model_name": "m", "outputs": [{%s, "parameters": {"binary_data_size": 8}}]}' % OUTPUT,
    ],
)
def test_invalid_responses(body: bytes) -> None:
    with pytest.raises(MLServerError):
        json_client.read_response(body, len(body))


def test_invalid_metadata() -> None:
    with pytest.raises(MLServerError):
        json_client.read_metadata(b'{"name": 1}')
