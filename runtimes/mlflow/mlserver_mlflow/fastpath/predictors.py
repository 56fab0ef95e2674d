"""Fast paths of plain requests: numeric V2 inputs that match the signature -> one array -> predict.

The slow path (`v2.request_decoder`, then MLflow's enforcement) copies and checks column by column,
which for a small request takes longer than most models. A fast path returns None for a request that
it does not support, and the request takes the slow path. `selection` chooses a model's fast path at
load and verifies that its results are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlserver.errors import CannotBatch
from mlserver.types import InferenceRequest, RequestInput, RowBlock

from ..invocations.json_formats import TENSOR_DTYPES
from ..metadata import TENSOR_DATATYPES

# dtype of the model -> V2 datatypes that it holds without loss, as MLflow's enforcement allows.
ACCEPTED_DATATYPES: dict[str, frozenset[str]] = {
    "float64": frozenset(
        ("FP64", "FP32", "FP16", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8")
    ),
    "float32": frozenset(("FP32", "FP16")),
    "int64": frozenset(("INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8")),
    "int32": frozenset(("INT32", "INT16", "INT8", "UINT16", "UINT8")),
    "bool": frozenset(("BOOL",)),
}

Predict = Callable[[Any], Any]


class FastPath(Protocol):
    """A request -> the model's argument -> its result."""

    def read(self, request: InferenceRequest) -> Any | None:
        """Return the argument for `run`; None if this request needs the slow path."""
        ...

    def run(self, data: Any) -> Any:
        """Return the model's result."""
        ...

    def part(self, data: Any, rows: slice) -> Any:
        """Return a copy of some rows of an argument, with the layout of a request of these rows."""
        ...


def run_per_request(path: FastPath, data: Any, rows_per_request: Sequence[int]) -> Any:
    """Return the concatenated results of joined requests, each predicted in a call of its own.

    Raises:
        CannotBatch: the results are not arrays that can be concatenated.
    """
    results, start = [], 0
    for rows in rows_per_request:
        result = path.run(path.part(data, slice(start, start + rows)))
        if type(result) is not np.ndarray or not result.ndim or len(result) != rows:
            raise CannotBatch
        results.append(result)
        start += rows
    return concatenate(results)


def concatenate(results: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate arrays of one dtype.

    Raises:
        CannotBatch: NumPy would convert some of them.
    """
    first = results[0].dtype
    for result in results:
        is_text = first.kind == "U" and result.dtype.kind == "U"
        if result.dtype != first and not is_text:
            raise CannotBatch
    return np.concatenate(results)


@dataclass
class ColumnsPredictor:
    """Fast path of a signature of named numeric columns, by an array or a frame.

    Attributes:
        predict: Receives the result of `read`.
        as_frame: Whether `read` returns a frame; else an array in Fortran order.
        max_rows: Rows up to which arrays were verified to give a frame's results; 0 = no limit.
        labels: Column labels of the frame; None = `names`.
        array_variant: Index of `predict` among the candidates that receive arrays; None = frames.
    """

    names: list[str]
    dtypes: list[np.dtype[Any]]
    predict: Predict
    as_frame: bool = True
    max_rows: int = 0
    labels: Sequence[Any] | None = None
    array_variant: int | None = None

    def __post_init__(self) -> None:
        self._index = pd.Index(
            self.names if self.labels is None else self.labels, tupleize_cols=False
        )
        self._common_dtype = self.dtypes[0] if len(set(self.dtypes)) == 1 else None
        self._accepted = [ACCEPTED_DATATYPES[str(dtype)] for dtype in self.dtypes]

    def read(self, request: InferenceRequest) -> Any | None:
        if not _is_plain(request, "pd"):
            return None
        block = request.rows
        if block is not None and self._common_dtype is not None:
            return self._read_row_block(block)
        inputs = self._sort_inputs(request.inputs)
        if inputs is None:
            return None
        rows = inputs[0].shape[0]
        if self.max_rows and rows > self.max_rows:
            return None
        if self._common_dtype is None:
            columns = [
                _to_flat_array(tensor).astype(dtype)
                for tensor, dtype in zip(inputs, self.dtypes, strict=True)
            ]
            return pd.DataFrame(dict(zip(self._index, columns, strict=True)))
        array = _join_columns(inputs, rows, self._common_dtype).T
        return pd.DataFrame(array, columns=self._index, copy=False) if self.as_frame else array

    def _read_row_block(self, block: RowBlock) -> Any | None:
        """Return the argument from a request of one row-major block."""
        if block.datatype not in self._accepted[0] or len(block.names) != len(self.names):
            return None
        if self.max_rows and block.row_count > self.max_rows:
            return None
        elements = np.frombuffer(block.block, dtype=TENSOR_DTYPES[block.datatype])
        rows = elements.reshape(block.row_count, len(self.names))
        if list(block.names) != self.names:
            positions = {name: index for index, name in enumerate(block.names)}
            if positions.keys() != set(self.names):
                return None
            rows = rows[:, [positions[name] for name in self.names]]
        array = np.array(rows, dtype=self._common_dtype, order="F")
        return pd.DataFrame(array, columns=self._index, copy=False) if self.as_frame else array

    def run(self, data: Any) -> Any:
        return self.predict(data)

    def part(self, data: Any, rows: slice) -> Any:
        return data.iloc[rows].copy() if self.as_frame else np.asfortranarray(data[rows])

    def _sort_inputs(self, inputs: list[RequestInput]) -> list[RequestInput] | None:
        """Return the inputs in the signature's order; None if one is missing, extra or unusual."""
        if len(inputs) != len(self.names):
            return None
        if any(tensor.name != name for tensor, name in zip(inputs, self.names, strict=True)):
            by_name = {tensor.name: tensor for tensor in inputs}
            if by_name.keys() != set(self.names):
                return None
            inputs = [by_name[name] for name in self.names]
        shape = inputs[0].shape
        if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or not shape[0]:
            return None
        for tensor, accepted in zip(inputs, self._accepted, strict=True):
            if tensor.shape != shape or str(tensor.datatype) not in accepted:
                return None
            if not _has_default_content_type(tensor):
                return None
        return inputs


@dataclass
class TensorsPredictor:
    """Fast path of a signature of tensors: a dictionary of arrays, or one array without a name."""

    names: list[str]
    dtypes: list[np.dtype[Any]]
    shapes: list[list[int]]
    named: bool
    predict: Predict
    labels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._labels = self.names if self.labels is None else self.labels

    def read(self, request: InferenceRequest) -> Any | None:
        is_plain = _is_plain(request, "dict" if self.named else "np")
        if not is_plain or len(request.inputs) != len(self.names):
            return None
        if self.named:
            by_name = {tensor.name: tensor for tensor in request.inputs}
        else:
            by_name = {self.names[0]: request.inputs[0]}
        if by_name.keys() != set(self.names):
            return None
        arrays: dict[Any, NDArray[Any]] = {}
        specs = zip(self.names, self._labels, self.dtypes, self.shapes, strict=True)
        for name, label, dtype, shape in specs:
            tensor = by_name[name]
            datatype = str(tensor.datatype)
            if not _has_default_content_type(tensor):
                return None
            if TENSOR_DATATYPES.get((dtype.kind, dtype.itemsize)) != datatype:
                return None
            if not matches_shape(tensor.shape, shape) or 0 in tensor.shape:
                return None
            # Views of received bytes are read-only, but models write to their inputs.
            arrays[label] = tensor.data.to_array(datatype, tensor.shape).copy()
        return arrays if self.named else arrays[self._labels[0]]

    def run(self, data: Any) -> Any:
        return self.predict(data)

    def part(self, data: Any, rows: slice) -> Any:
        if self.named:
            return {name: array[rows].copy() for name, array in data.items()}
        return data[rows].copy()


def matches_shape(shape: Sequence[int], spec: Sequence[int]) -> bool:
    """Whether the signature allows a shape (-1 is any size)."""
    if len(shape) != len(spec):
        return False
    return all(allowed in (-1, size) for size, allowed in zip(shape, spec, strict=True))


def _is_plain(request: InferenceRequest, content_type: str) -> bool:
    """Whether a request has the signature's content type, no params and no requested outputs."""
    if request.outputs:
        return False
    parameters = request.parameters
    if parameters is None:
        return True
    return parameters.content_type in (None, content_type) and not parameters.model_extra


def _has_default_content_type(tensor: RequestInput) -> bool:
    return tensor.parameters is None or tensor.parameters.content_type in (None, "np")


def _to_flat_array(tensor: RequestInput) -> NDArray[Any]:
    return tensor.data.to_array(str(tensor.datatype), tensor.shape).reshape(-1)


def _join_columns(inputs: list[RequestInput], rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a new, writable array with one column of the table per row."""
    datatype = str(inputs[0].datatype)
    if any(str(tensor.datatype) != datatype for tensor in inputs):
        array = np.empty((len(inputs), rows), dtype=dtype)
        for index, tensor in enumerate(inputs):
            array[index] = _to_flat_array(tensor)
        return array
    joined = bytearray().join([tensor.data.to_raw(datatype, tensor.shape) for tensor in inputs])
    array = np.frombuffer(joined, dtype=TENSOR_DTYPES[datatype]).reshape(len(inputs), rows)
    return array if array.dtype == dtype else array.astype(dtype)
