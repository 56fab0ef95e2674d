"""Rows drawn for the trial predictions at load: from the model's input example where there is one, else at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType
from mlflow.types.schema import Schema
from numpy.typing import NDArray

from ..metadata import is_number

SEED = 7
MOST = 1025
ANY_SIZE = 4  # for a variable dimension that is not the rows


class SampleInputs:
    """Up to `MOST` rows that fit a numeric signature."""

    def __init__(self, data: pd.DataFrame | NDArray[Any] | dict[str, NDArray[Any]]) -> None:
        self._data = data

    @property
    def most(self) -> int:
        """How many rows there are."""
        return (
            len(next(iter(self._data.values())))
            if isinstance(self._data, dict)
            else len(self._data)
        )

    def rows(self, count: int, start: int = 0) -> Any:
        """`count` rows from `start` on, in new memory."""
        return _cut(self._data, slice(start, start + count))

    @classmethod
    def of(cls, schema: Schema, example: Any = None) -> SampleInputs | None:
        """Rows for this signature, or None if it is not one of numbers with a first dimension of any size."""
        random = np.random.default_rng(SEED)
        if schema.is_tensor_spec():
            if not all(
                spec.shape and spec.shape[0] == -1 and spec.type.kind in "biuf"
                for spec in schema.inputs
            ):
                return None
            arrays = [_tensor(random, spec.type, spec.shape) for spec in schema.inputs]
            if not schema.has_input_names():
                return cls(arrays[0])
            return cls(
                {str(spec.name): array for spec, array in zip(schema.inputs, arrays, strict=True)}
            )
        if not schema.has_input_names() or not all(map(is_number, schema.inputs)):
            return None
        columns = {}
        for spec in schema.inputs:
            seen = _seen(example, spec.name)
            columns[spec.name] = _column(random, spec.type, seen)
        return cls(pd.DataFrame(columns))


def _seen(example: Any, name: Any) -> NDArray[Any] | None:
    """The example's values of a column, if they are numbers."""
    if not isinstance(example, pd.DataFrame) or name not in example.columns:
        return None
    values = example[name].to_numpy()
    return np.asarray(values) if values.dtype.kind in "biuf" and len(values) else None


def _column(random: np.random.Generator, kind: DataType, seen: NDArray[Any] | None) -> NDArray[Any]:
    dtype = kind.to_numpy()
    if kind == DataType.boolean:
        return random.integers(0, 2, MOST).astype(dtype)
    if kind in (DataType.integer, DataType.long):
        values = random.integers(0, 10, MOST) if seen is None else random.choice(seen, MOST)
        return values.astype(dtype)
    if seen is None:
        scale: NDArray[Any] = random.choice(np.array([0.1, 1.0, 10.0]), MOST)
        return np.asarray(random.standard_normal(MOST) * scale, dtype=dtype)
    center: NDArray[Any] = (
        random.choice(seen[np.isfinite(seen)], MOST) if np.isfinite(seen).any() else np.zeros(MOST)
    )
    return np.asarray(center * (1 + 0.1 * random.standard_normal(MOST)), dtype=dtype)


def _tensor(
    random: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]
) -> NDArray[Any]:
    size = [MOST if at == 0 else ANY_SIZE if dim == -1 else dim for at, dim in enumerate(shape)]
    # Large tensors (images) are tried with few rows.
    rows = max(3, min(MOST, 200_000 // max(1, int(np.prod(size[1:])))))
    size[0] = rows
    if dtype.kind == "f":
        return random.standard_normal(size).astype(dtype)
    return random.integers(0, 2, size).astype(dtype)


def _cut(data: Any, part: slice) -> Any:
    if isinstance(data, dict):
        return {name: array[part].copy() for name, array in data.items()}
    if isinstance(data, pd.DataFrame):
        return data.iloc[part].reset_index(drop=True)
    return data[part].copy()
