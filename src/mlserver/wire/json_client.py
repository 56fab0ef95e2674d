"""Client side of JSON and of the binary extension: request -> bytes, bytes -> response. Pure.

`wire.json` and `wire.binary` are the server side; `wire.proto` has both.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..errors import InvalidInput
from ..tensor import TensorError
from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from . import json
from .missing import restore_infinities, restore_missing, without_missing


def write_json(request: InferenceRequest) -> bytes:
    """Serialize a request as JSON.

    Raises:
        MLServerError: an input holds bytes that are not UTF-8 text.
    """
    return json.write_document(_build_document(request, request.inputs))


def write_binary(request: InferenceRequest) -> tuple[bytes, int]:
    """Serialize a request with all inputs as binary data, and a parameter for binary outputs.

    Returns:
        The body, and the size of its JSON head.

    Raises:
        TensorError: data does not fit its datatype and shape.
    """
    document = _build_document(request, [])
    blobs = []
    for tensor in request.inputs:
        tensor = without_missing(tensor)
        blob = memoryview(tensor.data.to_raw(str(tensor.datatype), tensor.shape)).cast("B")
        head = json.build_output_head(_as_output(tensor))
        head["parameters"] = {**head.get("parameters", {}), "binary_data_size": blob.nbytes}
        document["inputs"].append(head)
        blobs.append(blob)
    document["parameters"] = {**document.get("parameters", {}), "binary_data_output": True}
    head_bytes = json.write_document(document)
    return b"".join([head_bytes, *blobs]), len(head_bytes)


def _build_document(request: InferenceRequest, inputs: list[RequestInput]) -> dict[str, Any]:
    """Return the JSON object of a request.

    Inputs have the fields of outputs and are written as such.
    """
    as_response = InferenceResponse.build(
        {
            "model_name": "",
            "model_version": None,
            "id": request.id,
            "parameters": request.parameters,
            "outputs": [_as_output(tensor) for tensor in inputs],
        }
    )
    document = json.build_document(as_response)
    del document["model_name"]
    document["inputs"] = document.pop("outputs")
    if request.outputs is not None:
        document["outputs"] = [output.model_dump() for output in request.outputs]
    return document


def _as_output(tensor: RequestInput) -> ResponseOutput:
    return ResponseOutput.build(dict(tensor.__dict__))


def read_response(body: bytes, header_length: int | None = None) -> InferenceResponse:
    """Parse a server's response.

    Args:
        header_length: Bytes of the JSON head. None: all of the body.

    Raises:
        MLServerError: the body is not a response.
    """
    end = len(body) if header_length is None else header_length
    document = json.read_json(body[:end])
    outputs = document.get("outputs") if isinstance(document, dict) else None
    sizes = [_pop_size(output) for output in outputs] if isinstance(outputs, list) else []
    try:
        response = InferenceResponse.model_validate(document)
    except ValidationError as error:
        raise json.describe_validation_error(error) from None
    blob, offset = memoryview(body)[end:], 0
    for output, size in zip(response.outputs, sizes, strict=True):
        try:
            if size is not None:
                block = blob[offset : offset + size]
                output.data = TensorData.from_raw(block, str(output.datatype), output.shape)
                restore_missing(output)
                offset += size
            output.data.normalize(str(output.datatype), output.shape)
            restore_infinities(output)
        except TensorError as error:
            raise InvalidInput(
                f"data of output '{output.name}'", error.expected, error.received
            ) from None
    return response


def _pop_size(output: Any) -> int | None:
    parameters = output.get("parameters") if isinstance(output, dict) else None
    size = parameters.pop("binary_data_size", None) if isinstance(parameters, dict) else None
    if isinstance(size, int):
        output["data"] = []
        return size
    return None


def read_metadata(body: bytes) -> MetadataModelResponse:
    """Parse a model's metadata.

    Raises:
        MLServerError: the body is not metadata.
    """
    try:
        return MetadataModelResponse.model_validate(json.read_json(body))
    except ValidationError as error:
        raise json.describe_validation_error(error) from None
