"""The client's half of JSON and of the binary extension: request -> bytes and bytes -> response. Pure.

`wire.json` and `wire.binary` have the server's half; `wire.proto` has both.
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
    """Raises `MLServerError`: an input holds bytes that are no text."""
    return json.write_document(_document(request, request.inputs))


def write_binary(request: InferenceRequest) -> tuple[bytes, int]:
    """The body, and the length of its JSON head. All inputs go as binary data, and the outputs are asked for so.

    Raises:
        TensorError: data does not fit its datatype and shape.
    """
    document = _document(request, [])
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


def _document(request: InferenceRequest, inputs: list[RequestInput]) -> dict[str, Any]:
    """A request as the object that its JSON shows. An input has the fields of an output, and is written as one."""
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
    """What a server answered.

    Args:
        header_length: Bytes of the JSON head; None = all of the body.

    Raises:
        MLServerError: the body is no response of the protocol.
    """
    end = len(body) if header_length is None else header_length
    document = json.read_json(body[:end])
    outputs = document.get("outputs") if isinstance(document, dict) else None
    sizes = [_take_size(output) for output in outputs] if isinstance(outputs, list) else []
    try:
        response = InferenceResponse.model_validate(document)
    except ValidationError as error:
        raise json.describe_validation_error(error) from None
    blob, at = memoryview(body)[end:], 0
    for output, size in zip(response.outputs, sizes, strict=True):
        try:
            if size is not None:
                output.data = TensorData.from_raw(
                    blob[at : at + size], str(output.datatype), output.shape
                )
                restore_missing(output)
                at += size
            output.data.normalize(str(output.datatype), output.shape)
            restore_infinities(output)
        except TensorError as error:
            raise InvalidInput(
                f"data of output '{output.name}'", error.expected, error.received
            ) from None
    return response


def _take_size(output: Any) -> int | None:
    parameters = output.get("parameters") if isinstance(output, dict) else None
    size = parameters.pop("binary_data_size", None) if isinstance(parameters, dict) else None
    if isinstance(size, int):
        output["data"] = []
        return size
    return None


def read_metadata(body: bytes) -> MetadataModelResponse:
    """A model's metadata. Raises `MLServerError`: it is none."""
    try:
        return MetadataModelResponse.model_validate(json.read_json(body))
    except ValidationError as error:
        raise json.describe_validation_error(error) from None
