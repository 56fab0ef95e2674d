"""Events of the payload log: copies of a request's or a response's tensors.

The copy is made on the event loop. It shares no memory with the request, which later stages may
change and which may be larger than the logged part. Nothing is converted here: `encoding` converts
in the writer's thread. A request or response is not changed: no representation is added to its
tensors, because the front end formats numbers according to the representation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from ..errors import MLServerError
from ..metrics.model_metrics import ModelMetrics
from ..parallel.rpc.protocol import plain_value
from ..tensor import element_count, flat_elements, item_size
from ..types import InferenceRequest, InferenceResponse, Parameters, RequestInput, ResponseOutput
from ..types.row_block import OutputSlice, RowBlock

# Bytes that an element of a list, a tensor and an event count in addition to their data.
ELEMENT_OVERHEAD = 16
TENSOR_OVERHEAD = 128
EVENT_OVERHEAD = 1024

# Bytes of the parameters of one tensor; larger ones are left out.
MAX_TENSOR_PARAMETERS = 4096
# Parameter in place of parameters that are left out because of their size.
OMITTED = "omitted"

Columns = dict[str, list[Any]]
# Reader of an unparsed body: parameters of the message and the body -> columns; None = unreadable.
# See `custom_routes.Route`.
ColumnReader = Callable[[Mapping[str, Any], bytes], Columns | None]

_encode_json = msgspec.json.Encoder(enc_hook=plain_value).encode


class TensorCopy(NamedTuple):
    """The copy of one tensor.

    Attributes:
        data: The binary encoding, a NumPy array, or a flat list of elements; None = omitted,
            because the tensors exceed `max_bytes`.
        size: Bytes of the data, omitted or not.
    """

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None
    data: Any
    size: int


@dataclass(frozen=True)
class ModelLog:
    """Properties that all events of one model version share.

    Attributes:
        name: Name of the model.
        version: Version of the model; None = a model without versions.
        max_bytes: Bytes of the tensors of one event; larger ones are omitted.
        service: Name of the inference service in CloudEvents; "" = the model's name.
        masks: Names of inputs and columns whose values are not logged.
        inputs: Names of the model's inputs; empty = not known.
        readers: Content type of unparsed bodies -> their reader.
    """

    name: str
    version: str | None
    max_bytes: int
    service: str = ""
    masks: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()
    readers: Mapping[str, ColumnReader] = field(default_factory=dict)


@dataclass(slots=True)
class PayloadEvent:
    """One request or one response.

    Attributes:
        time: Seconds since 1970.
        request_id: Id of the request, also of its responses.
        rows: Copy of a row block; None = the tensors are in `tensors`.
        parameters: Parameters of the message without headers.
        index: Position of the message in its stream.
        error: Error code and HTTP status of a failed request. Texts of errors may quote values, so
            they are not logged.
        size: Bytes that the event counts in the queue.
        metrics: Counts the event when it is written or dropped.
    """

    log: ModelLog
    kind: Literal["request", "response"]
    request_id: str | None
    time: float = 0.0
    rows: RowBlock | None = None
    tensors: list[TensorCopy] = field(default_factory=list)
    parameters: dict[str, Any] | None = None
    index: int = 0
    error: tuple[str, int] | None = None
    size: int = EVENT_OVERHEAD
    metrics: ModelMetrics | None = None


def copy_request(log: ModelLog, request: InferenceRequest, index: int = 0) -> PayloadEvent:
    """Return the event of a request. A row block is copied as one block."""
    event = PayloadEvent(log, "request", request.id, time.time(), index=index)
    _add_parameters(event, request.parameters)
    rows = request.rows
    if rows is None:
        _copy_tensors(event, request.inputs)
    elif (size := memoryview(rows.block).nbytes) <= log.max_bytes:
        event.rows = rows._replace(block=bytes(rows.block))
        event.size += size + len(rows.names) * TENSOR_OVERHEAD
    else:
        width = size // len(rows.names)
        shape = [rows.row_count, *rows.shape]
        event.tensors = [
            TensorCopy(name, rows.datatype, shape, None, None, width) for name in rows.names
        ]
    return event


def copy_response(
    log: ModelLog, response: InferenceResponse, request_id: str | None, index: int = 0
) -> PayloadEvent:
    """Return the event of a response. The slice of a batch's outputs is not replaced by tensors."""
    event = PayloadEvent(log, "response", request_id, time.time(), index=index)
    _add_parameters(event, response.parameters)
    output_slice = response.output_slice
    if output_slice is None:
        _copy_tensors(event, response.outputs)
    else:
        _copy_slice(event, output_slice)
    return event


def copy_error(
    log: ModelLog, error: BaseException, request_id: str | None, index: int = 0
) -> PayloadEvent:
    """Return the event of a failed request."""
    event = PayloadEvent(log, "response", request_id, time.time(), index=index)
    event.error = ("CANCELLED", 499)
    if isinstance(error, MLServerError):
        event.error = (error.code, error.status_code)
    elif isinstance(error, Exception):
        event.error = ("INTERNAL", 500)
    return event


def _add_parameters(event: PayloadEvent, parameters: Parameters | None) -> None:
    """Copy the parameters of a message, unless they exceed `max_bytes`."""
    values = _copy_parameters(parameters, event.log.max_bytes)
    if values and values.keys() != {"content_type"}:
        event.size += _measure_value(values, event.log.max_bytes)
    event.parameters = values


def _copy_parameters(
    parameters: Parameters | None, limit: int = MAX_TENSOR_PARAMETERS
) -> dict[str, Any] | None:
    """Return the parameters without headers; `OMITTED` in place of those above `limit` bytes."""
    if parameters is None:
        return None
    values = parameters.to_dict()
    values.pop("headers", None)
    if parameters.__pydantic_extra__ and _measure_value(values, limit) > limit:
        return {OMITTED: True}
    return {key: _freeze(value) for key, value in values.items()} or None


def _copy_slice(event: PayloadEvent, output_slice: OutputSlice) -> None:
    row_sizes = output_slice.batch.row_sizes
    rows = output_slice.row_count
    is_logged = sum(row_sizes) * rows <= event.log.max_bytes
    for index, output in enumerate(output_slice.batch.outputs):
        data = bytes(output_slice.read_block(index)) if is_logged else None
        parameters = _copy_parameters(output.parameters)
        shape = [rows, *output.shape[1:]]
        size = row_sizes[index] * rows
        copy = TensorCopy(output.name, str(output.datatype), shape, parameters, data, size)
        event.tensors.append(copy)
        event.size += TENSOR_OVERHEAD + (size if is_logged else 0)


def _copy_tensors(event: PayloadEvent, tensors: list[Any]) -> None:
    """Add copies of all tensors, without their data if they exceed `max_bytes` together."""
    limit = event.log.max_bytes
    sizes = [_measure(tensor, limit) for tensor in tensors]
    is_logged = sum(sizes) <= limit
    for tensor, size in zip(tensors, sizes, strict=True):
        data = _copy_data(tensor) if is_logged else None
        shape, parameters = list(tensor.shape), _copy_parameters(tensor.parameters)
        copy = TensorCopy(tensor.name, str(tensor.datatype), shape, parameters, data, size)
        event.tensors.append(copy)
        event.size += TENSOR_OVERHEAD + len(tensor.name) + (size if is_logged else 0)


def _measure(tensor: RequestInput | ResponseOutput, limit: int) -> int:
    """Return the bytes of a tensor's data; for BYTES, stop counting above `limit`."""
    raw, datatype = tensor.data.raw, str(tensor.datatype)
    if raw is not None:
        return memoryview(raw).nbytes
    if datatype != "BYTES":
        return element_count(tensor.shape) * item_size(datatype)
    size = element_count(tensor.shape) * ELEMENT_OVERHEAD
    if size > limit:
        return size
    size = 0
    for element in flat_elements(tensor.data.root, tensor.shape):
        is_text = isinstance(element, (str, bytes))
        size += ELEMENT_OVERHEAD + (len(element) if is_text else _measure_value(element, limit))
        if size > limit:
            break
    return size


def _measure_value(value: Any, limit: int) -> int:
    """Return the approximate bytes of a JSON value; stop counting above `limit`."""
    size, pending = 0, [value]
    while pending and size <= limit:
        item = pending.pop()
        size += ELEMENT_OVERHEAD
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += item
        elif isinstance(item, (str, bytes)):
            size += len(item)
    return size


def _copy_data(tensor: RequestInput | ResponseOutput) -> Any:
    """Return a copy of a tensor's data in one of the representations that exist."""
    data = tensor.data
    if data.raw is not None:
        return bytes(data.raw)
    if "root" not in data.representations:
        return data.array.copy()  # type: ignore[union-attr]
    elements = flat_elements(data.root, tensor.shape)
    return [_freeze(element) for element in elements]


def _freeze(element: Any) -> Any:
    """Return an immutable copy of an element: lists and objects become JSON text."""
    if isinstance(element, (list, dict)):
        return msgspec.Raw(_encode_json(element))
    return element
