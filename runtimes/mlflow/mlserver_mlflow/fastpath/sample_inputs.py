"""Sample rows for trial predictions, drawn around the model's input example if it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType
from mlflow.types.schema import Schema
from numpy.typing import NDArray

from ..metadata import is_number

RANDOM_SEED = 7
MAX_SAMPLE_ROWS = 1025
MAX_TENSOR_ELEMENTS = 200_000  # per tensor; images get fewer rows
VARIABLE_DIMENSION_SIZE = 4  # of dimensions beside the rows


class SampleInputs:
    """Up to `MAX_SAMPLE_ROWS` rows that fit a numeric signature."""

    def __init__(self, data: pd.DataFrame | NDArray[Any] | dict[str, NDArray[Any]]) -> None:
        self._data = data

    @classmethod
    def from_schema(cls, schema: Schema, example: Any = None) -> SampleInputs | None:
        """Return samples for a signature of numbers with a variable number of rows, else None."""
        random = np.random.default_rng(RANDOM_SEED)
        if schema.is_tensor_spec():
            return cls._from_tensors(random, schema)
        if not schema.has_input_names() or not all(map(is_number, schema.inputs)):
            return None
        columns = {}
        for spec in schema.inputs:
            values = _get_example_values(example, spec.name)
            columns[spec.name] = _make_column(random, spec.type, values)
        return cls(pd.DataFrame(columns))

    @classmethod
    def _from_tensors(cls, random: np.random.Generator, schema: Schema) -> SampleInputs | None:
        for spec in schema.inputs:
            if not spec.shape or spec.shape[0] != -1 or spec.type.kind not in "biuf":
                return None
        arrays = [_make_tensor(random, spec.type, spec.shape) for spec in schema.inputs]
        if not schema.has_input_names():
            return cls(arrays[0])
        names = [str(spec.name) for spec in schema.inputs]
        return cls(dict(zip(names, arrays, strict=True)))

    @property
    def row_count(self) -> int:
        """Number of rows."""
        data = self._data
        return len(next(iter(data.values()))) if isinstance(data, dict) else len(data)

    def rows(self, count: int, start: int = 0) -> Any:
        """Return a copy of `count` rows from `start` on."""
        rows = slice(start, start + count)
        if isinstance(self._data, dict):
            return {name: array[rows].copy() for name, array in self._data.items()}
        if isinstance(self._data, pd.DataFrame):
            return self._data.iloc[rows].reset_index(drop=True)
        return self._data[rows].copy()


def _get_example_values(example: Any, name: Any) -> NDArray[Any] | None:
    """Return a column's values in the example if they are numbers."""
    if not isinstance(example, pd.DataFrame) or name not in example.columns:
        return None
    values = example[name].to_numpy()
    return np.asarray(values) if values.dtype.kind in "biuf" and len(values) else None


def _make_column(
    random: np.random.Generator, data_type: DataType, examples: NDArray[Any] | None
) -> NDArray[Any]:
    dtype, count = data_type.to_numpy(), MAX_SAMPLE_ROWS
    if data_type == DataType.boolean:
        return random.integers(0, 2, count).astype(dtype)
    if data_type in (DataType.integer, DataType.long):
        if examples is None:
            return random.integers(0, 10, count).astype(dtype)
        return random.choice(examples, count).astype(dtype)
    if examples is None:
        scale: NDArray[Any] = random.choice(np.array([0.1, 1.0, 10.0]), count)
        return np.asarray(random.standard_normal(count) * scale, dtype=dtype)
    finite = examples[np.isfinite(examples)]
    center: NDArray[Any] = random.choice(finite, count) if len(finite) else np.zeros(count)
    return np.asarray(center * (1 + 0.1 * random.standard_normal(count)), dtype=dtype)


def _make_tensor(
    random: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]
) -> NDArray[Any]:
    row_shape = [VARIABLE_DIMENSION_SIZE if size == -1 else size for size in shape[1:]]
    row_limit = MAX_TENSOR_ELEMENTS // max(1, int(np.prod(row_shape)))
    sample_shape = [max(3, min(MAX_SAMPLE_ROWS, row_limit)), *row_shape]
    if dtype.kind == "f":
        return random.standard_normal(sample_shape).astype(dtype)
    return random.integers(0, 2, sample_shape).astype(dtype)
