"""Output types of a signature: a declared output has its declared datatype whatever its values.

A declared type never changes a value: an array is cast only if every element is unchanged. Values
that the type cannot hold (a fraction in a `long`, a number in a `string`) are encoded as without a
declaration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from mlflow.types import DataType
from mlflow.types import schema as mlflow_schema
from mlflow.types.schema import ColSpec, Schema, TensorSpec
from numpy.typing import NDArray

from ..metadata import NUMERIC_TYPES
from .type_enforcement import NotExactError, as_dtype

# MLflow before 2.19 has no AnyType; nothing is an instance of `()`.
ANY_TYPE: Any = getattr(mlflow_schema, "AnyType", ())
# Declared type of a column of nested values: one JSON text per row.
JSON = "json"
# DataType for a scalar column, dtype for a tensor, JSON for nested values, None if not declared.
DeclaredType: TypeAlias = DataType | np.dtype[Any] | str | None


class DeclaredOutputs:
    """Names and types of a signature's outputs.

    Attributes:
        names: Names of the outputs; empty if an output has none.
        single: Type of the only output; None if there are several.
        common: Type of all outputs, for one array that holds them all; None if they differ.
    """

    def __init__(self, schema: Schema | None = None) -> None:
        specs: list[ColSpec | TensorSpec] = list(schema.inputs) if schema is not None else []
        is_named = schema is not None and schema.has_input_names()
        types = [_read_type(spec) for spec in specs]
        self.names = [str(spec.name) for spec in specs] if is_named else []
        self.single: DeclaredType = types[0] if len(types) == 1 else None
        self._types = dict(zip(self.names, types, strict=False))
        is_uniform = bool(types) and all(declared == types[0] for declared in types)
        self.common: DeclaredType = types[0] if is_uniform else None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def get_type(self, name: str) -> DeclaredType:
        """Return the declared type of an output; None if it is not declared."""
        return self._types.get(name)


def _read_type(spec: ColSpec | TensorSpec) -> DeclaredType:
    if isinstance(spec, TensorSpec):
        dtype: np.dtype[Any] = spec.type
        return dtype
    if isinstance(spec.type, ANY_TYPE):
        return None
    return spec.type if isinstance(spec.type, DataType) else JSON


def get_number_dtype(kind: DeclaredType) -> np.dtype[Any] | None:
    """Return the dtype of a declared numeric output; None for other types."""
    if isinstance(kind, np.dtype):
        return kind if kind.kind in "biuf" else None
    if isinstance(kind, DataType) and kind in NUMERIC_TYPES:
        dtype: np.dtype[Any] = np.dtype(kind.to_numpy())
        return dtype
    return None


def cast(array: NDArray[Any], kind: DeclaredType) -> NDArray[Any]:
    """Return the array in its declared dtype if no element changes, else the array itself."""
    dtype = get_number_dtype(kind)
    if dtype is None or array.dtype == dtype or array.dtype.kind not in "biuf":
        return array
    if dtype.kind == "b":
        is_binary = array.dtype.kind in "iu" and bool(np.isin(array, (0, 1)).all())
        return array.astype(dtype) if is_binary else array
    if array.dtype.kind == "b":
        return array.astype(dtype)
    if array.dtype.kind == "f" and dtype.kind == "f":
        return array.astype(dtype) if dtype.itemsize > array.dtype.itemsize else array
    try:
        return as_dtype(array, dtype)
    except NotExactError:
        return array
