"""The binary tensor extension of HTTP: a JSON head, then the blocks of the binary tensors. Pure.

The header `Inference-Header-Content-Length` is the size of the head, which `wire.json` reads and
writes. Tensors of a request are views of its body; numbers never become Python objects.
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
    """Return the size of the JSON head; None without the header: all of the body is JSON.

    Raises:
        MLServerError: the value is not a number from 0 to `content_length`.
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
    """Parse a request; its binary tensors are views of `body`.

    Args:
        header_length: Bytes of the JSON head. None: all of the body. 0: the body is the data of the
            model's only input (a raw request), and all outputs are returned as binary data.
        metadata: The model's metadata, for raw requests.

    Raises:
        MLServerError: the body is not such a request.
    """
    view = memoryview(body)
    if header_length == 0:
        return _read_raw(view, metadata)
    end = len(view) if header_length is None else header_length
    document = json.read_json(view[:end])
    sizes = _pop_sizes(document)
    request = json.validate_document(document)
    _fill_data(request, sizes, view[end:])
    return request


def _pop_sizes(document: Any) -> list[int | None]:
    """Remove `binary_data_size` from each input of a document and return them; None for JSON data.

    Binary inputs get empty data, so that the validator accepts them. Malformed inputs are left to
    the validator.
    """
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list):
        return []
    return [_pop_size(index, tensor) for index, tensor in enumerate(inputs)]


def _pop_size(index: int, tensor: Any) -> int | None:
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


def _fill_data(request: InferenceRequest, sizes: list[int | None], blob: memoryview) -> None:
    """Set the data of each binary input to its part of the blob."""
    offset = 0
    for tensor, size in zip(request.inputs, sizes, strict=True):
        if size is None:
            continue
        if size > len(blob) - offset:
            received = f"{len(blob) - offset} bytes"
            raise InvalidInput(
                f"data of input '{tensor.name}'", f"{size} bytes of binary data", received
            )
        tensor.data = _read_block(blob[offset : offset + size], tensor)
        restore_missing(tensor)
        offset += size
    if offset != len(blob):
        raise InvalidInput(
            "body", f"{offset} bytes of binary data after the JSON", f"{len(blob)} bytes"
        )


def _read_block(raw: memoryview, tensor: RequestInput) -> TensorData:
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
            f"received a request for a model with {len(inputs)}"
        )
    declared = inputs[0]
    datatype = str(declared.datatype)
    raw = memoryview(len(body).to_bytes(4, "little") + body) if datatype == "BYTES" else body
    shape = _raw_shape(declared, len(body))
    tensor = RequestInput(
        name=declared.name, shape=shape, datatype=declared.datatype, data=TensorData()
    )
    tensor.data = _read_block(raw, tensor)
    return InferenceRequest(
        inputs=[tensor], parameters=Parameters.from_values({"binary_data_output": True})
    )


def _raw_shape(declared: MetadataTensor, size: int) -> list[int]:
    """Return the declared shape with its variable dimension computed from `size`.

    If the batch dimension (the first) and others are variable, it is 1.
    """
    shape, datatype = list(declared.shape), str(declared.datatype)
    if datatype == "BYTES":
        return [1 if dim < 0 else dim for dim in shape]
    if sum(dim < 0 for dim in shape) > 1 and shape[0] < 0:
        shape[0] = 1
    variable = [position for position, dim in enumerate(shape) if dim < 0]
    if len(variable) > 1:
        expected = "at most one variable dimension for a body without JSON"
        raise InvalidInput(f"input '{declared.name}'", expected, str(declared.shape))
    if variable:
        step = element_count([dim for dim in shape if dim >= 0]) * item_size(datatype)
        if size % step if step else size:
            expected = f"a multiple of {step} bytes for {datatype} {declared.shape}"
            raise InvalidInput(f"data of input '{declared.name}'", expected, f"{size} bytes")
        shape[variable[0]] = size // step if step else 0
    return shape


# -- writing --


@dataclass(frozen=True, slots=True)
class BinaryOutputs:
    """The outputs to write as binary data: `by_name`, and for all others `default`."""

    default: bool
    by_name: dict[str, bool]

    def __contains__(self, output: str) -> bool:
        return self.by_name.get(output, self.default)


def pop_binary_outputs(request: InferenceRequest) -> BinaryOutputs | None:
    """Remove and return the parameters that select binary outputs; None if there are none.

    They are `binary_data` of a requested output and `binary_data_output` of the request. The model
    does not receive them.

    Raises:
        MLServerError: a value is neither true nor false.
    """
    default = _pop_flag(request.parameters, "binary_data_output", "the request")
    by_name = {}
    for output in request.outputs or ():
        flag = _pop_flag(output.parameters, "binary_data", f"output '{output.name}'")
        if flag is not None:
            by_name[output.name] = flag
    if not default and not any(by_name.values()):
        return None
    return BinaryOutputs(bool(default), by_name)


def _pop_flag(parameters: Parameters | None, key: str, owner: str) -> bool | None:
    extra = parameters.model_extra if parameters is not None else None
    value = extra.pop(key, None) if extra else None
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter '{key}' of {owner}", "true or false", repr(value)[:40])
    return value


def write_response(
    response: InferenceResponse, binary_outputs: BinaryOutputs
) -> tuple[list[bytes | memoryview], int | None]:
    """Serialize a response.

    Returns:
        The body in parts, not joined, and the size of its JSON head; None: all of it is JSON.

    Raises:
        MLServerError: an output cannot be written.
    """
    binary = [output.name in binary_outputs for output in response.outputs]
    if not any(binary):
        return [json.write_response(response)], None

    flags = zip(response.outputs, binary, strict=True)
    in_json = [output for output, is_binary in flags if not is_binary]
    document = json.build_document(response.model_copy(update={"outputs": in_json}))
    json.add_infinities(document["outputs"], in_json)
    json_outputs = iter(document["outputs"])
    blobs: list[bytes | memoryview] = []
    heads = []
    for output, is_binary in zip(response.outputs, binary, strict=True):
        if is_binary:
            output = without_missing(output)
            blob = _write_block(output)
            blobs.append(blob)
            heads.append(_build_binary_head(output, len(blob)))
        else:
            heads.append(next(json_outputs))
    document["outputs"] = heads
    head = json.write_document(document)
    return [head, *blobs], len(head)


def _write_block(output: ResponseOutput) -> memoryview:
    try:
        return memoryview(output.data.to_raw(str(output.datatype), output.shape)).cast("B")
    except TensorError as error:
        raise MLServerError(
            f"The model's output '{output.name}' is not valid: {error}", 500
        ) from None


def _build_binary_head(output: ResponseOutput, size: int) -> dict[str, Any]:
    head = json.build_output_head(output)
    head["parameters"] = {**head.get("parameters", {}), "binary_data_size": size}
    return head
