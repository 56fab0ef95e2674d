"""The binary tensor extension of HTTP: a JSON head, then the bytes of the binary tensors, one after another. Pure.

The head is `wire.json`'s; the header `Inference-Header-Content-Length` says where it ends. Tensors are views of the
body that came; nothing numeric ever becomes a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, MLServerError
from ..tensor import TensorError, element_count, item_size
from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from . import json
from .missing import restore_missing, without_missing

HEADER = "Inference-Header-Content-Length"


def read_header(value: str | None, content_length: int) -> int | None:
    """The length of the JSON head; None = there is no such header, all of the body is JSON.

    Raises:
        MLServerError: the value is no number between 0 and `content_length`.
    """
    if value is None:
        return None
    text = value.strip()
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    if not 0 <= length <= content_length:
        raise InvalidInput(
            f"header {HEADER}", f"a length from 0 to the body's {content_length}", repr(value[:40])
        )
    return length


# -- reading --


def read_request(
    body: bytes | memoryview,
    header_length: int | None,
    metadata: MetadataModelResponse | None = None,
) -> InferenceRequest:
    """A request of the road; its binary tensors are views of `body`.

    Args:
        header_length: Bytes of the JSON head; None = all of the body; 0 = the body is the model's one input and nothing
            else (the raw form), for which all outputs come back binary.
        metadata: The model's, needed for the raw form only.

    Raises:
        MLServerError: the body is no such request.
    """
    view = memoryview(body)
    if header_length == 0:
        return _read_raw(view, metadata)
    end = len(view) if header_length is None else header_length
    document = json.read_json(view[:end])
    sizes = _take_sizes(document)
    request = json.validate_document(document)
    _fill(request, sizes, view[end:])
    return request


def _take_sizes(document: Any) -> list[int | None]:
    """`binary_data_size` of each input (None = its data is JSON), taken out of the document.

    Binary inputs get empty data, so that the document is checked like any other. What is not even an object is left to
    that check.
    """
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list):
        return []
    return [_take_size(index, tensor) for index, tensor in enumerate(inputs)]


def _take_size(index: int, tensor: Any) -> int | None:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
        return None
    size = parameters.pop("binary_data_size")
    if type(size) is not int or size < 0:
        raise InvalidInput(
            f"inputs[{index}].parameters.binary_data_size", "a number of bytes", repr(size)[:40]
        )
    if "data" in tensor:
        raise InvalidInput(f"inputs[{index}]", "either data or binary_data_size", "both")
    tensor["data"] = []
    return size


def _fill(request: InferenceRequest, sizes: list[int | None], blob: memoryview) -> None:
    """Give each binary input its part of the blob."""
    at = 0
    for tensor, size in zip(request.inputs, sizes, strict=True):
        if size is None:
            continue
        if size > len(blob) - at:
            left = len(blob) - at
            raise InvalidInput(
                f"data of input '{tensor.name}'", f"{size} bytes of binary data", f"{left} bytes"
            )
        tensor.data = _tensor(blob[at : at + size], tensor)
        restore_missing(tensor)
        at += size
    if at != len(blob):
        raise InvalidInput(
            "body", f"{at} bytes of binary data after the JSON", f"{len(blob)} bytes"
        )


def _tensor(raw: memoryview, tensor: RequestInput) -> TensorData:
    try:
        return TensorData.from_raw(raw, str(tensor.datatype), tensor.shape)
    except TensorError as error:
        raise InvalidInput(
            f"data of input '{tensor.name}'", error.expected, error.received
        ) from None


def _read_raw(body: memoryview, metadata: MetadataModelResponse | None) -> InferenceRequest:
    inputs = metadata.inputs or [] if metadata is not None else []
    if len(inputs) != 1:
        raise MLServerError(
            f"Invalid header {HEADER}: 0 (a body without JSON) needs a model with exactly 1 input, "
            f"and this one names {len(inputs)}"
        )
    described = inputs[0]
    datatype = str(described.datatype)
    raw = memoryview(len(body).to_bytes(4, "little") + body) if datatype == "BYTES" else body
    shape = _raw_shape(described, len(body))
    tensor = RequestInput(
        name=described.name, shape=shape, datatype=described.datatype, data=TensorData()
    )
    tensor.data = _tensor(raw, tensor)
    return InferenceRequest(
        inputs=[tensor], parameters=Parameters.from_values({"binary_data_output": True})
    )


def _raw_shape(described: MetadataTensor, size: int) -> list[int]:
    """The model's shape with its one variable dimension worked out; of several, the first (the batch) is 1."""
    shape, datatype = list(described.shape), str(described.datatype)
    if datatype == "BYTES":
        return [1 if dim < 0 else dim for dim in shape]
    if sum(dim < 0 for dim in shape) > 1 and shape[0] < 0:
        shape[0] = 1
    variable = [position for position, dim in enumerate(shape) if dim < 0]
    if len(variable) > 1:
        expected = "at most one variable dimension for a body without JSON"
        raise InvalidInput(f"input '{described.name}'", expected, str(described.shape))
    if variable:
        step = element_count([dim for dim in shape if dim >= 0]) * item_size(datatype)
        if size % step if step else size:
            expected = f"a multiple of {step} bytes for {datatype} {described.shape}"
            raise InvalidInput(f"data of input '{described.name}'", expected, f"{size} bytes")
        shape[variable[0]] = size // step if step else 0
    return shape


# -- writing --


@dataclass(frozen=True, slots=True)
class BinaryOutputs:
    """Which outputs a caller wants as binary data: those `chosen` by name, else `default`."""

    default: bool
    chosen: dict[str, bool]

    def __contains__(self, output: str) -> bool:
        return self.chosen.get(output, self.default)


def pop_binary_outputs(request: InferenceRequest) -> BinaryOutputs | None:
    """What the caller wants as binary data, taken out of the request, for it is no business of the model; None = nothing.

    Each requested output's parameter `binary_data` says it, else the request's `binary_data_output`.

    Raises:
        MLServerError: a flag is neither true nor false.
    """
    if request.parameters is None and request.outputs is None:
        return None
    default = _take_flag(request.parameters, "binary_data_output", "the request")
    chosen = {}
    for output in request.outputs or ():
        flag = _take_flag(output.parameters, "binary_data", f"output '{output.name}'")
        if flag is not None:
            chosen[output.name] = flag
    return BinaryOutputs(bool(default), chosen) if default or any(chosen.values()) else None


def _take_flag(parameters: Parameters | None, key: str, owner: str) -> bool | None:
    extra = parameters.model_extra if parameters is not None else None
    value = extra.pop(key, None) if extra else None
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter '{key}' of {owner}", "true or false", repr(value)[:40])
    return value


def write_response(
    response: InferenceResponse, wanted: BinaryOutputs
) -> tuple[list[bytes | memoryview], int | None]:
    """The parts of the body, in order and not joined, and the length of the JSON head; None = all of it is JSON.

    Raises:
        MLServerError: an output fits neither form.
    """
    binary = [output.name in wanted for output in response.outputs]
    if not any(binary):
        return [json.write_response(response)], None

    in_json = [
        output for output, is_binary in zip(response.outputs, binary, strict=True) if not is_binary
    ]
    document = json.build_document(response.model_copy(update={"outputs": in_json}))
    json.add_infinities(document["outputs"], in_json)
    written = iter(document["outputs"])
    blobs: list[bytes | memoryview] = []
    heads = []
    for output, is_binary in zip(response.outputs, binary, strict=True):
        if is_binary:
            output = without_missing(output)
            blob = _raw(output)
            blobs.append(blob)
            heads.append(_binary_head(output, len(blob)))
        else:
            heads.append(next(written))
    document["outputs"] = heads
    head = json.write_document(document)
    return [head, *blobs], len(head)


def _raw(output: ResponseOutput) -> memoryview:
    try:
        return memoryview(output.data.to_raw(str(output.datatype), output.shape)).cast("B")
    except TensorError as error:
        raise MLServerError(
            f"The model's output '{output.name}' is not valid: {error}", 500
        ) from None


def _binary_head(output: ResponseOutput, size: int) -> dict[str, Any]:
    head = json.build_output_head(output)
    head["parameters"] = {**head.get("parameters", {}), "binary_data_size": size}
    return head
