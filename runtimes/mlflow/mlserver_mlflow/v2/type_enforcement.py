"""V2 values against an MLflow signature: exact conversions where MLflow is too strict, and errors a caller can act on.

MLflow's enforcement looks at dtypes only, so it refuses the integers 3 and 7 for a `double` column. V2 clients choose the
datatype of a tensor, so here a number is taken whenever the column's type holds it exactly; a `double` may also be
rounded to a `float` as JSON numbers are. Everything else is refused with the column, what it needs and what came.
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

from ..metadata import NUMBERS, SCALARS

ROUNDED = 2**53


@dataclass(frozen=True)
class AppliedContentType:
    """Which content type read an input, and who said so."""

    content_type: str | None
    reason: str

    def __str__(self) -> str:
        if self.content_type is None:
            return "no content type applied"
        return f"content type '{self.content_type}' applied because of {self.reason}"


class NotExactError(ValueError):
    """An array's values cannot be held by the wanted dtype."""


def as_dtype(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The same numbers in another dtype.

    Raises:
        NotExactError: a value would change, other than by rounding a float to a narrower float.
    """
    kind, wanted = array.dtype.kind, dtype.kind
    if array.dtype == dtype:
        return array
    if kind not in "iuf" or wanted not in "iuf":
        raise NotExactError
    if kind == "f" and wanted == "f":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if wanted == "f":
        made = array.astype(dtype)
        limit = 2 ** (np.finfo(dtype).nmant + 1)
        if array.size and (int(array.min()) < -limit or int(array.max()) > limit):
            raise NotExactError
        return made
    return _as_integers(array, dtype)


def _as_integers(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
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


def column(
    name: str, values: Any, spec: ColSpec, datatype: str, applied: AppliedContentType
) -> Any:
    """The values of one column, ready for MLflow's own enforcement.

    Raises:
        InvalidInput: they cannot be what the signature says.
    """
    kind = spec.type
    is_array = isinstance(values, np.ndarray) and values.dtype.kind in "biuf"
    if not isinstance(kind, DataType):
        return [widened(value, kind) for value in values]
    if kind in NUMBERS:
        if is_array:
            try:
                return as_dtype(values, kind.to_numpy())
            except NotExactError:
                pass
        raise refusal(name, kind, _received(datatype, values, is_array, kind), applied)
    if is_array:
        raise refusal(name, kind, datatype, applied)
    return values


def refusal(name: str, kind: Any, received: str, applied: AppliedContentType) -> InvalidInput:
    expected = str(kind)
    if isinstance(kind, DataType):
        expected = f"{kind.name} ({SCALARS[kind][0]})"
    return InvalidInput(f"input '{name}'", expected, f"{received} ({applied})")


def _received(datatype: str, values: Any, is_array: bool, kind: DataType) -> str:
    if not is_array or kind == DataType.boolean:
        return datatype
    floats = values.dtype.kind == "f"
    if floats and np.isnan(values).any():
        return f"{datatype} with missing values"
    if floats:
        return f"{datatype} with fractions or out of range"
    return (
        f"{datatype} with values it cannot hold exactly" if values.dtype.kind in "iu" else datatype
    )


def first_invalid_column(frame: Any, schema: Schema) -> str | None:
    """The first nested column that MLflow refuses: its own message does not name it."""
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
    """A nested value whose whole numbers are floats where the signature wants floats; all else is left as it is."""
    if isinstance(kind, DataType):
        wants_float = kind in (DataType.double, DataType.float)
        whole = type(value) is int and abs(value) <= ROUNDED
        return float(value) if wants_float and whole else value
    if isinstance(kind, Array) and isinstance(value, list):
        return [widened(item, kind.dtype) for item in value]
    if isinstance(kind, Map) and isinstance(value, dict):
        return {key: widened(item, kind.value_type) for key, item in value.items()}
    if isinstance(kind, Object) and isinstance(value, dict):
        types = {part.name: part.dtype for part in kind.properties}
        return {key: widened(item, types.get(key)) for key, item in value.items()}
    return value
