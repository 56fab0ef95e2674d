"""What a signature declares of a model's outputs: a declared output has its declared datatype whatever its values.

Declared is a type, never a change of value: an array is cast only where every element stays equal, and what the declared
type cannot hold (a fraction of a `long`, a number of a `string`) is encoded as if nothing were declared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from mlflow.types import DataType
from mlflow.types import schema as mlflow_schema
from mlflow.types.schema import ColSpec, Schema, TensorSpec
from numpy.typing import NDArray

from ..metadata import NUMBERS
from .type_enforcement import NotExactError, as_dtype

# MLflow before 2.19 has no such type; `()` is no type's class.
ANY_TYPE: Any = getattr(mlflow_schema, "AnyType", ())
# What a column of nested values is declared to be: JSON, one value per row.
JSON = "json"
# DataType = a scalar column, dtype = a tensor, JSON = nested values, None = not declared.
Kind: TypeAlias = DataType | np.dtype[Any] | str | None


class DeclaredOutputs:
    """The types of a signature's outputs.

    Attributes:
        names: Of the outputs; empty if they have none.
        single: The type of the only output; None if there are several.
        common: The type that all outputs have, for one array that holds them all; None if they differ.
    """

    def __init__(self, schema: Schema | None = None) -> None:
        specs: list[ColSpec | TensorSpec] = list(schema.inputs) if schema is not None else []
        is_named = schema is not None and schema.has_input_names()
        self.names = [str(spec.name) for spec in specs] if is_named else []
        self.single: Kind = _kind(specs[0]) if len(specs) == 1 else None
        self._kinds = {name: _kind(spec) for name, spec in zip(self.names, specs, strict=False)}
        kinds = [_kind(spec) for spec in specs]
        self.common: Kind = kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def kind_of(self, name: str) -> Kind:
        """The declared type of the output of this name; None if there is none."""
        return self._kinds.get(name)


def _kind(spec: ColSpec | TensorSpec) -> Kind:
    if isinstance(spec, TensorSpec):
        dtype: np.dtype[Any] = spec.type
        return dtype
    if isinstance(spec.type, ANY_TYPE):
        return None
    return spec.type if isinstance(spec.type, DataType) else JSON


def number_type(kind: Kind) -> np.dtype[Any] | None:
    """The dtype of a declared output of numbers, else None."""
    if isinstance(kind, np.dtype):
        return kind if kind.kind in "biuf" else None
    if isinstance(kind, DataType) and kind in NUMBERS:
        dtype: np.dtype[Any] = np.dtype(kind.to_numpy())
        return dtype
    return None


def cast(array: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """The array in its declared dtype where every element stays equal, else as it is."""
    dtype = number_type(kind)
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
