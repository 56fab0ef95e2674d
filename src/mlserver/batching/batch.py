"""Joins requests along their first dimension, and splits the response by rows. Pure.

Requests are joined if their `batch_key` is equal. Each request gets its own rows of every output. A
response with another number of rows than the batch is not split.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, cast

from ..pipeline import RequestContext
from ..tensor import FORMATS, flat_elements, join_bytes_block, split_bytes_block
from ..types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from ..types.row_block import (
    BatchedOutputs,
    OutputSlice,
    OutputSliceResponse,
    RowBlock,
    RowBlockRequest,
    join_rows,
)


class RowsDisagree(Exception):
    """The response cannot be split: an output has another number of rows than the batch."""


def rows_of(request: InferenceRequest) -> int:
    """Return the first dimension that all inputs share; 0 = none: the request is not joined."""
    rows = request.rows
    if rows is not None:
        return rows.row_count
    row_count = 0
    for tensor in request.inputs:
        if not tensor.shape or (row_count and tensor.shape[0] != row_count):
            return 0
        row_count = tensor.shape[0]
        if not row_count:
            return 0
    return row_count


async def count_rows(
    requests: AsyncIterator[InferenceRequest], context: RequestContext
) -> AsyncIterator[InferenceRequest]:
    """Yield the requests of a stream, adding their rows to `context.timings.batch_rows`."""
    async for request in requests:
        context.timings.batch_rows += rows_of(request)
        yield request


def batch_key(request: InferenceRequest) -> Any:
    """Return what is equal in requests that can be joined: everything but id, headers and rows."""
    parameters, outputs = request.parameters, request.outputs
    requested = None
    if outputs is not None:
        requested = [(output.name, _freeze(output.parameters)) for output in outputs]
    common = (None if parameters is None else _freeze(parameters), requested)
    rows = request.rows
    if rows is not None:
        return (*common, *_row_block_key(rows.names, rows.datatype, rows.shape))
    names, datatypes, shapes, tensor_parameters = [], [], [], []
    for tensor in request.inputs:
        names.append(tensor.name)
        datatypes.append(tensor.datatype)
        shapes.append(tensor.shape[1:])
        tensor_parameters.append(_freeze(tensor.parameters) if tensor.parameters else None)
    return (*common, names, datatypes, shapes, tensor_parameters)


@lru_cache(maxsize=1024)
def _row_block_key(
    names: tuple[str, ...], datatype: str, shape: tuple[int, ...]
) -> tuple[Any, ...]:
    """Return the key of the tensors that a row block represents, so that both can be joined."""
    width = len(names)
    return list(names), [datatype] * width, [list(shape)] * width, [None] * width


def _freeze(parameters: Parameters | None) -> str | None:
    """Return parameters as text, in which 1, 1.0 and true differ, as they do for the model."""
    if parameters is None:
        return None
    values = parameters.to_dict()
    values.pop("headers", None)
    return repr(values) if values else None


def join(requests: Sequence[InferenceRequest]) -> InferenceRequest:
    """Return one request with the rows of all, in order. Their `batch_key` must be equal."""
    first = requests[0]
    blocks = [request.rows for request in requests]
    if None not in blocks:
        rows = join_rows(cast(list[RowBlock], blocks))
        return RowBlockRequest.from_rows(rows, None, _shared_parameters(requests), first.outputs)
    total = sum([request.inputs[0].shape[0] for request in requests])
    columns = zip(*[request.inputs for request in requests], strict=True)
    inputs = [_join_input(parts, total) for parts in columns]
    return InferenceRequest.build(
        {
            "id": None,
            "parameters": _shared_parameters(requests),
            "inputs": inputs,
            "outputs": first.outputs,
        }
    )


def _shared_parameters(requests: Sequence[InferenceRequest]) -> Parameters | None:
    """Return the parameters, with the headers that are equal in all requests."""
    parameters = requests[0].parameters
    if parameters is None or not parameters.headers:
        return parameters
    shared = dict(parameters.headers)
    for request in requests[1:]:
        headers = (request.parameters and request.parameters.headers) or {}
        shared = {name: value for name, value in shared.items() if headers.get(name) == value}
    return Parameters.from_values(parameters.to_dict() | {"headers": shared})


def _join_input(parts: tuple[RequestInput, ...], total: int) -> RequestInput:
    first = parts[0]
    datatype: Any = first.datatype
    shape = [total, *first.shape[1:]]
    raws = [part.data.raw for part in parts]
    if datatype != "BYTES" or None not in raws:
        if None in raws:  # not normalized: a tensor created by a model
            raws = [part.data.to_raw(datatype, part.shape) for part in parts]
        data = TensorData.from_trusted_raw(b"".join(raws), datatype, shape)  # type: ignore[arg-type]
    else:
        elements: list[Any] = []
        for part in parts:
            elements.extend(flat_elements(part.data.root, part.shape))
        data = TensorData(elements)
    return RequestInput.build(
        {
            "name": first.name,
            "shape": shape,
            "datatype": datatype,
            "parameters": first.parameters,
            "data": data,
        }
    )


def split(response: InferenceResponse, rows: Sequence[int]) -> list[InferenceResponse]:
    """One response per request, each with its own rows of every output.

    Raises:
        RowsDisagree: an output's first dimension is not the sum of `rows`.
    """
    total = sum(rows)
    if not response.outputs:
        raise RowsDisagree
    for output in response.outputs:
        _check_rows(output, total)
    if all(str(output.datatype) in FORMATS for output in response.outputs):
        joined = BatchedOutputs(response.outputs, total)
        slices = [
            OutputSlice(joined, start, count)
            for start, count in zip(accumulate(rows, initial=0), rows, strict=False)
        ]
        return [
            OutputSliceResponse.from_slice(response, _copy(response.parameters), part)
            for part in slices
        ]
    columns = [_split_output(output, rows, total) for output in response.outputs]
    responses = []
    for outputs in zip(*columns, strict=True):
        fields = {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "id": None,
            "parameters": _copy(response.parameters),
            "outputs": list(outputs),
        }
        responses.append(InferenceResponse.build(fields))
    return responses


def _copy(parameters: Parameters | None) -> Parameters | None:
    """Return a copy for one response.

    The data plane removes headers from it, and clients of the API may change it.
    """
    return None if parameters is None else parameters.shallow_copy()


def _check_rows(output: ResponseOutput, total: int) -> None:
    shape, block = output.shape, output.data.block_shape
    if not shape or shape[0] != total or (block is not None and (not block or block[0] != total)):
        raise RowsDisagree


def _split_output(output: ResponseOutput, rows: Sequence[int], total: int) -> list[ResponseOutput]:
    shape = output.shape
    datatype, inner = str(output.datatype), shape[1:]
    block = output.data.block_shape
    block_inner = list(block[1:]) if block is not None else inner
    if datatype == "BYTES":
        return _split_elements(output, rows, total)
    raw = memoryview(output.data.to_raw(datatype, shape)).cast("B")
    step = raw.nbytes // total
    parts, offset = [], 0
    for count in rows:
        end = offset + count * step
        data = TensorData.from_trusted_raw(raw[offset:end], datatype, [count, *block_inner])
        parts.append(_create_output(output, [count, *inner], data))
        offset = end
    return parts


def _split_elements(
    output: ResponseOutput, rows: Sequence[int], total: int
) -> list[ResponseOutput]:
    data, inner = output.data, output.shape[1:]
    is_raw = data.raw is not None
    if data.raw is not None:
        elements = split_bytes_block(data.raw)
    else:
        elements = flat_elements(data.root, output.shape)
    step = len(elements) // total
    block = data.block_shape
    block_inner = inner if block is None else list(block[1:])
    parts, offset = [], 0
    for count in rows:
        part = elements[offset : offset + count * step]
        if is_raw:
            part_data = TensorData.from_trusted_raw(
                join_bytes_block(part), "BYTES", [count, *block_inner]
            )
        else:
            part_data = TensorData(part)
        parts.append(_create_output(output, [count, *inner], part_data))
        offset += count * step
    return parts


def _create_output(output: ResponseOutput, shape: list[int], data: TensorData) -> ResponseOutput:
    return ResponseOutput.build(
        {
            "name": output.name,
            "shape": shape,
            "datatype": output.datatype,
            "parameters": output.parameters,
            "data": data,
        }
    )
