"""Joins requests along their first dimension and splits the answer back, row by row. Pure.

Joined are only requests that agree in everything but their rows; `batch_key` is what must agree. The split gives each
request its own rows of every output and refuses to guess when the model returned another number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, cast

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
    """The model's answer cannot be split: an output has another number of rows than the batch."""


def rows_of(request: InferenceRequest) -> int:
    """Rows of a request: the first dimension that all its inputs share; 0 if there is none (never joined)."""
    if request.rows is not None:
        return request.rows.row_count
    row_count = 0
    for tensor in request.inputs:
        if not tensor.shape or (row_count and tensor.shape[0] != row_count):
            return 0
        row_count = tensor.shape[0]
        if not row_count:
            return 0
    return row_count


def batch_key(request: InferenceRequest) -> Any:
    """What two requests must agree in to be joined: everything but id, headers and the rows themselves."""
    parameters, outputs = request.parameters, request.outputs
    common = (
        None if parameters is None else _frozen(parameters),
        None
        if outputs is None
        else [(output.name, _frozen(output.parameters)) for output in outputs],
    )
    rows = request.rows
    if rows is not None:
        return (*common, *_key_of_rows(rows.names, rows.datatype, rows.shape))
    inputs = request.inputs
    return (
        *common,
        [tensor.name for tensor in inputs],
        [tensor.datatype for tensor in inputs],
        [tensor.shape[1:] for tensor in inputs],
        [None if tensor.parameters is None else _frozen(tensor.parameters) for tensor in inputs],
    )


@lru_cache(maxsize=1024)
def _key_of_rows(names: tuple[str, ...], datatype: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the key of the tensors that a row block represents, so that both join."""
    width = len(names)
    return list(names), [datatype] * width, [list(shape)] * width, [None] * width


def _frozen(parameters: Parameters | None) -> str | None:
    """Parameters as text, in which 1, 1.0 and true differ as they may for the model."""
    if parameters is None:
        return None
    values = parameters.plain()
    values.pop("headers", None)
    return repr(values) if values else None


def join(requests: Sequence[InferenceRequest]) -> InferenceRequest:
    """One request with the rows of all, in order. They must have the same `batch_key`, and rows."""
    first = requests[0]
    blocks = [request.rows for request in requests]
    if None not in blocks:
        rows = join_rows(cast(list[RowBlock], blocks))
        return RowBlockRequest.from_rows(rows, None, _shared_parameters(requests), first.outputs)
    total = sum([request.inputs[0].shape[0] for request in requests])
    inputs = [
        _join_input(parts, total)
        for parts in zip(*[request.inputs for request in requests], strict=True)
    ]
    return InferenceRequest.build(
        {
            "id": None,
            "parameters": _shared_parameters(requests),
            "inputs": inputs,
            "outputs": first.outputs,
        }
    )


def _shared_parameters(requests: Sequence[InferenceRequest]) -> Parameters | None:
    """The parameters, which agree, with those headers on which all requests agree."""
    parameters = requests[0].parameters
    if parameters is None or not parameters.headers:
        return parameters
    given = [request.parameters for request in requests[1:]]
    others = [(one.headers if one is not None else None) or {} for one in given]
    shared = {
        name: value
        for name, value in parameters.headers.items()
        if all(headers.get(name) == value for headers in others)
    }
    return Parameters.of(parameters.plain() | {"headers": shared})


def _join_input(parts: tuple[RequestInput, ...], total: int) -> RequestInput:
    first = parts[0]
    datatype: Any = first.datatype
    shape = [total, *first.shape[1:]]
    raws = [part.data.raw for part in parts]
    if datatype != "BYTES" or None not in raws:
        if None in raws:  # not settled: an author's own tensor
            raws = [part.data.to_raw(datatype, part.shape) for part in parts]
        data = TensorData.trusted(b"".join(raws), datatype, shape)  # type: ignore[arg-type]
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
        return [
            OutputSliceResponse.from_slice(
                response, _own(response.parameters), OutputSlice(joined, start, count)
            )
            for start, count in zip(accumulate(rows, initial=0), rows, strict=False)
        ]
    columns = [_split_output(output, rows, total) for output in response.outputs]
    return [
        InferenceResponse.build(
            {
                "model_name": response.model_name,
                "model_version": response.model_version,
                "id": None,
                "parameters": _own(response.parameters),
                "outputs": [column[member] for column in columns],
            }
        )
        for member in range(len(rows))
    ]


def _own(parameters: Parameters | None) -> Parameters | None:
    """A copy for one member: the road takes headers out of it and a caller may write to it."""
    return None if parameters is None else parameters.copied()


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
    parts, at = [], 0
    for count in rows:
        data = TensorData.trusted(raw[at : at + count * step], datatype, [count, *block_inner])
        parts.append(_part(output, [count, *inner], data))
        at += count * step
    return parts


def _split_elements(
    output: ResponseOutput, rows: Sequence[int], total: int
) -> list[ResponseOutput]:
    data, inner = output.data, output.shape[1:]
    was_raw = data.raw is not None
    elements = (
        split_bytes_block(data.raw)
        if data.raw is not None
        else flat_elements(data.root, output.shape)
    )
    step = len(elements) // total
    block = data.block_shape
    block_inner = inner if block is None else list(block[1:])
    parts, at = [], 0
    for count in rows:
        own = elements[at : at + count * step]
        part = (
            TensorData.trusted(join_bytes_block(own), "BYTES", [count, *block_inner])
            if was_raw
            else TensorData(own)
        )
        parts.append(_part(output, [count, *inner], part))
        at += count * step
    return parts


def _part(output: ResponseOutput, shape: list[int], data: TensorData) -> ResponseOutput:
    return ResponseOutput.build(
        {
            "name": output.name,
            "shape": shape,
            "datatype": output.datatype,
            "parameters": output.parameters,
            "data": data,
        }
    )
