"""The short way of the common request: numeric V2 inputs that match the signature -> one block -> the model's predict.

The general way (`decoding`, then MLflow's enforcement) copies and checks column by column, which for a small request costs
more than most models. A path below answers None for whatever it does not recognise at a glance, and the general way
follows. Which path a model gets, and that it gives the same results, is decided once at load (`plan`).
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
from ..metadata import TENSORS

# dtype that the model gets -> datatypes that it holds without loss, as MLflow's own enforcement allows.
WIDENED: dict[str, frozenset[str]] = {
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
    """Request -> the model's argument -> its result."""

    def read(self, request: InferenceRequest) -> Any | None:
        """The argument for `run`, or None if this request needs the general way."""
        ...

    def run(self, data: Any) -> Any:
        """The model's result."""
        ...

    def part(self, data: Any, rows: slice) -> Any:
        """Some rows of an argument, in memory of their own and laid out as if they had come alone."""
        ...


def run_per_request(path: FastPath, data: Any, members: Sequence[int]) -> Any:
    """The results of joined requests, each predicted as if it had come alone.

    Raises:
        NotTogether: the results are no arrays that could be put together.
    """
    results, at = [], 0
    for rows in members:
        result = path.run(path.part(data, slice(at, at + rows)))
        if type(result) is not np.ndarray or not result.ndim or len(result) != rows:
            raise CannotBatch
        results.append(result)
        at += rows
    return concatenated(results)


def concatenated(results: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one dtype, one after the other. Raises `CannotBatch`: NumPy would convert some of them."""
    first = results[0].dtype
    if any(
        result.dtype != first and (result.dtype.kind != first.kind or first.kind != "U")
        for result in results
    ):
        raise CannotBatch
    return np.concatenate(results)


@dataclass
class ColumnsPredictor:
    """A signature of named numeric columns: an array in column order (`as_frame` False) or a frame.

    Attributes:
        predict: Takes what `read` gives.
        max_rows: Rows up to which an array was proven to give the frame's results; 0 = any number.
        labels: What the frame calls the columns; None = by their names.
    """

    names: list[str]
    dtypes: list[np.dtype[Any]]
    predict: Predict
    as_frame: bool = True
    max_rows: int = 0
    labels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._index = pd.Index(
            self.names if self.labels is None else self.labels, tupleize_cols=False
        )
        self._one = self.dtypes[0] if len(set(self.dtypes)) == 1 else None
        self._held = [WIDENED[str(dtype)] for dtype in self.dtypes]

    def read(self, request: InferenceRequest) -> Any | None:
        if not _is_plain(request, "pd"):
            return None
        table = request.rows
        if table is not None and self._one is not None:
            return self._read_rows(table)
        inputs = self._in_order(request.inputs)
        if inputs is None:
            return None
        rows = inputs[0].shape[0]
        if self.max_rows and rows > self.max_rows:
            return None
        if self._one is None:
            columns = [
                _flat(tensor).astype(dtype)
                for tensor, dtype in zip(inputs, self.dtypes, strict=True)
            ]
            return pd.DataFrame(dict(zip(self._index, columns, strict=True)))
        block = _block(inputs, rows, self._one).T
        return pd.DataFrame(block, columns=self._index, copy=False) if self.as_frame else block

    def _read_rows(self, table: RowBlock) -> Any | None:
        """The argument from a row block."""
        if table.datatype not in self._held[0] or len(table.names) != len(self.names):
            return None
        if self.max_rows and table.row_count > self.max_rows:
            return None
        block = np.frombuffer(table.block, dtype=TENSOR_DTYPES[table.datatype]).reshape(
            table.row_count, len(self.names)
        )
        if list(table.names) != self.names:
            order = {name: at for at, name in enumerate(table.names)}
            if order.keys() != set(self.names):
                return None
            block = block[:, [order[name] for name in self.names]]
        array = np.array(block, dtype=self._one, order="F")
        return pd.DataFrame(array, columns=self._index, copy=False) if self.as_frame else array

    def run(self, data: Any) -> Any:
        return self.predict(data)

    def part(self, data: Any, rows: slice) -> Any:
        return data.iloc[rows].copy() if self.as_frame else np.asfortranarray(data[rows])

    def _in_order(self, inputs: list[RequestInput]) -> list[RequestInput] | None:
        """The inputs in the signature's order, if they are all there, alone, and of datatypes that the columns hold."""
        if len(inputs) != len(self.names):
            return None
        if any(tensor.name != name for tensor, name in zip(inputs, self.names, strict=True)):
            known = {tensor.name: tensor for tensor in inputs}
            if known.keys() != set(self.names):
                return None
            inputs = [known[name] for name in self.names]
        shape = inputs[0].shape
        if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or not shape[0]:
            return None
        for tensor, held in zip(inputs, self._held, strict=True):
            if (
                tensor.shape != shape
                or str(tensor.datatype) not in held
                or not _has_no_type(tensor)
            ):
                return None
        return inputs


@dataclass
class TensorsPredictor:
    """A signature of tensors: a dictionary of arrays by label, or the one array if it has no name."""

    names: list[str]
    dtypes: list[np.dtype[Any]]
    shapes: list[list[int]]
    named: bool
    predict: Predict
    labels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._labels = self.names if self.labels is None else self.labels

    def read(self, request: InferenceRequest) -> Any | None:
        if not _is_plain(request, "dict" if self.named else "np") or len(request.inputs) != len(
            self.names
        ):
            return None
        known = (
            {tensor.name: tensor for tensor in request.inputs}
            if self.named
            else {self.names[0]: request.inputs[0]}
        )
        if known.keys() != set(self.names):
            return None
        arrays: dict[Any, NDArray[Any]] = {}
        for name, label, dtype, shape in zip(
            self.names, self._labels, self.dtypes, self.shapes, strict=True
        ):
            tensor = known[name]
            if not _has_no_type(tensor) or TENSORS.get((dtype.kind, dtype.itemsize)) != str(
                tensor.datatype
            ):
                return None
            if not fits(tensor.shape, shape) or 0 in tensor.shape:
                return None
            arrays[label] = tensor.data.to_array(str(tensor.datatype), tensor.shape)
        return arrays if self.named else arrays[self._labels[0]]

    def run(self, data: Any) -> Any:
        return self.predict(data)

    def part(self, data: Any, rows: slice) -> Any:
        if self.named:
            return {name: array[rows].copy() for name, array in data.items()}
        return data[rows].copy()


def fits(shape: Sequence[int], spec: Sequence[int]) -> bool:
    """Whether a shape is one that the signature allows (-1 is any size)."""
    return len(shape) == len(spec) and all(
        want in (-1, got) for got, want in zip(shape, spec, strict=True)
    )


def _is_plain(request: InferenceRequest, content_type: str) -> bool:
    """No content type but the signature's, no params, no wanted outputs."""
    parameters = request.parameters
    if request.outputs:
        return False
    return parameters is None or (
        parameters.content_type in (None, content_type) and not parameters.model_extra
    )


def _has_no_type(tensor: RequestInput) -> bool:
    return tensor.parameters is None or tensor.parameters.content_type in (None, "np")


def _flat(tensor: RequestInput) -> NDArray[Any]:
    return tensor.data.to_array(str(tensor.datatype), tensor.shape).reshape(-1)


def _block(inputs: list[RequestInput], rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The columns one after the other as the rows of a new, writable array."""
    datatype = inputs[0].datatype
    if any(tensor.datatype != datatype for tensor in inputs):
        block = np.empty((len(inputs), rows), dtype=dtype)
        for at, tensor in enumerate(inputs):
            block[at] = _flat(tensor)
        return block
    joined = bytearray().join(
        [tensor.data.to_raw(str(datatype), tensor.shape) for tensor in inputs]
    )
    array = np.frombuffer(joined, dtype=TENSOR_DTYPES[str(datatype)]).reshape(len(inputs), rows)
    return array if array.dtype == dtype else array.astype(dtype)
