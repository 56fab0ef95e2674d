"""Exact conversion of V2 values to the types of an MLflow signature.

MLflow's enforcement compares dtypes only, so it refuses the integers 3 and 7 for a `double` column.
V2 clients choose the datatype of a tensor, so a number is accepted here if the column's type holds
it exactly; a `double` may also be rounded to a `float`, as JSON numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_type
from mlflow.types import DataType
from mlflow.types.schema import Array, ColSpec, Map, Object, Schema
from numpy.typing import NDArray

from mlserver.errors import InvalidInput

from ..metadata import NUMERIC_TYPES, SCALAR_TYPES

MAX_EXACT_INTEGER = 2**53  # of a double


@dataclass(frozen=True)
class AppliedContentType:
    """The content type that an input was read by, and where it was specified."""

    content_type: str | None
    reason: str

    def __str__(self) -> str:
        if self.content_type is None:
            return "no content type applied"
        return f"content type '{self.content_type}' applied because of {self.reason}"


class NotExactError(ValueError):
    """The target dtype does not hold all values of an array."""


def as_dtype(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the same numbers in another dtype.

    Raises:
        NotExactError: a value would change, other than by rounding a float to a narrower float.
    """
    source, target = array.dtype.kind, dtype.kind
    if array.dtype == dtype:
        return array
    if source not in "iuf" or target not in "iuf":
        raise NotExactError
    if source == "f" and target == "f":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if target == "f":
        limit = 2 ** (np.finfo(dtype).nmant + 1)
        if array.size and (int(array.min()) < -limit or int(array.max()) > limit):
            raise NotExactError
        return array.astype(dtype)
    return _to_integers(array, dtype)


def _to_integers(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.size == 0:
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or not (np.trunc(array) == array).all():
            raise NotExactError
        # 2**63 is exact as a float, the largest integer below it is not.
        if float(low) < float(limits.min) or float(high) >= float(limits.max) + 1:
            raise NotExactError
    elif int(low) < limits.min or int(high) > limits.max:
        raise NotExactError
    return array.astype(dtype)


def convert_column(
    name: str, values: Any, spec: ColSpec, datatype: str, applied: AppliedContentType
) -> Any:
    """Return a column's values in types that MLflow's own enforcement accepts.

    Raises:
        InvalidInput: the signature's type does not hold them.
    """
    kind = spec.type
    is_array = isinstance(values, np.ndarray) and values.dtype.kind in "biuf"
    if not isinstance(kind, DataType):
        return [widened(value, kind) for value in values]
    if kind in NUMERIC_TYPES:
        if is_array:
            try:
                return as_dtype(values, kind.to_numpy())
            except NotExactError:
                pass
        received = _describe_received(datatype, values, is_array, kind)
        raise build_type_error(name, kind, received, applied)
    if is_array:
        raise build_type_error(name, kind, datatype, applied)
    return values


def build_type_error(
    name: str, kind: Any, received: str, applied: AppliedContentType
) -> InvalidInput:
    """Return the error for an input of another type than the signature's."""
    expected = str(kind)
    if isinstance(kind, DataType):
        expected = f"{kind.name} ({SCALAR_TYPES[kind][0]})"
    return InvalidInput(f"input '{name}'", expected, f"{received} ({applied})")


def _describe_received(datatype: str, values: Any, is_array: bool, kind: DataType) -> str:
    if not is_array or kind == DataType.boolean:
        return datatype
    floats = values.dtype.kind == "f"
    if floats and np.isnan(values).any():
        return f"{datatype} with missing values"
    if floats:
        return f"{datatype} with fractions or out of range"
    is_integer = values.dtype.kind in "iu"
    return f"{datatype} with values it cannot hold exactly" if is_integer else datatype


def first_invalid_column(frame: Any, schema: Schema) -> str | None:
    """Return the first nested column that MLflow refuses, which MLflow's message does not name."""
    if not isinstance(frame, pd.DataFrame) or schema.is_tensor_spec():
        return None
    for position, spec in enumerate(schema.inputs):
        name = spec.name if spec.name is not None else position
        if isinstance(spec.type, DataType) or name not in frame.columns:
            continue
        try:
            for value in frame[name]:
                _enforce_type(value, spec.type, required=spec.required)
        except MlflowException:
            return str(name)
    return None


def widened(value: Any, kind: Any) -> Any:
    """Return a nested value with floats in place of integers where the signature has floats."""
    if isinstance(kind, DataType):
        is_float = kind in (DataType.double, DataType.float)
        is_exact = type(value) is int and abs(value) <= MAX_EXACT_INTEGER
        return float(value) if is_float and is_exact else value
    if isinstance(kind, Array) and isinstance(value, list):
        return [widened(item, kind.dtype) for item in value]
    if isinstance(kind, Map) and isinstance(value, dict):
        return {key: widened(item, kind.value_type) for key, item in value.items()}
    if isinstance(kind, Object) and isinstance(value, dict):
        types = {part.name: part.dtype for part in kind.properties}
        return {key: widened(item, types.get(key)) for key, item in value.items()}
    return value
