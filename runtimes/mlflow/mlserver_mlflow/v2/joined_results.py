"""Whether the result of joined requests can be encoded as one, so that each request gets what it gets alone.

Encodings depend on values, and so do the dtypes that NumPy and pandas give to values: an integer beside a fraction is a
float, text beside a number is an object. A result passes only if every request's rows have, encoded on their own, the
datatype, content type and elements of the whole, and if no row of another request can have widened their dtype. What
does not pass is predicted request by request (`NotTogether`).

Fixed dtypes (text, booleans, numbers of libraries that fix the dtype when a model is fitted, declared outputs) cost
nothing here or one pass over the array; other results are encoded once more, request by request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType
from numpy.typing import NDArray

from mlserver.types import ResponseOutput

from .declared_outputs import DeclaredOutputs, Kind, cast, number_type
from .plain_values import label
from .response_encoder import (
    BASE64,
    DATETIME,
    PD_JSON,
    STR,
    column_names,
    of_array,
    of_column,
    of_list,
)

# The content type of a declared column, whatever is missing in it.
_DECLARED = {DataType.string: STR, DataType.binary: BASE64, DataType.datetime: DATETIME}
Encode = Callable[[Any], ResponseOutput]


@dataclass(frozen=True)
class Members:
    """The requests of a batch.

    Attributes:
        counts: Rows of each.
        has_fixed_types: The model's library gives numbers of one dtype, whatever their values.
    """

    counts: Sequence[int]
    has_fixed_types: bool

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def starts(self) -> list[int]:
        return [0, *accumulate(self.counts)][:-1]

    def slices(self) -> list[slice]:
        return [
            slice(start, start + count)
            for start, count in zip(self.starts, self.counts, strict=True)
        ]


def is_separable(result: Any, members: Members, declared: DeclaredOutputs) -> bool:
    """Whether each request's rows of the result are encoded as they are alone.

    A result without one row per row of the batch passes: the scheduler does not split it.
    """
    single = declared.single if declared.single is not None else declared.common
    if isinstance(result, pd.DataFrame):
        if len(result) != members.total:
            return True
        columns = zip(column_names(result), range(result.shape[1]), strict=True)
        return all(
            _is_column(result.iloc[:, at], members, declared.kind_of(name)) for name, at in columns
        )
    if isinstance(result, dict):
        return all(
            _is_part(value, members, declared.kind_of(label(key))) for key, value in result.items()
        )
    if hasattr(result, "toarray") and hasattr(result, "nnz"):
        result = result.toarray()
    if type(result).__module__.partition(".")[0] == "polars":
        return False
    kind = (
        declared.kind_of(str(result.name)) or declared.single
        if isinstance(result, pd.Series)
        else single
    )
    return _is_part(result, members, kind)


def _is_part(value: Any, members: Members, kind: Kind) -> bool:
    if isinstance(value, pd.Series):
        return len(value) != members.total or _is_column(value, members, kind)
    if isinstance(value, np.ndarray):
        return not value.ndim or len(value) != members.total or _is_array(value, members, kind)
    if isinstance(value, list | tuple):
        items = list(value)
        return len(items) != members.total or _is_uniform(
            items, members, lambda part: of_list("", part, kind)
        )
    return True


def _is_array(array: NDArray[Any], members: Members, kind: Kind) -> bool:
    if isinstance(array, np.ma.MaskedArray):
        return _is_masked_array(array, members, kind)
    if array.dtype.kind in "biuf":
        return _is_number_array(array, members, kind)
    if array.dtype.kind in "US":
        return members.has_fixed_types or not any(
            _are_numerals(array[part].ravel()) for part in members.slices()
        )
    if array.dtype.kind == "M" and not members.has_fixed_types:
        return False  # NumPy's unit is that of the finest element
    encode: Encode = lambda part: of_array("", part, kind)  # noqa: E731
    if array.dtype.kind == "O" and not members.has_fixed_types:
        return _is_uniform(array, members, encode, inferred=_inferred_array)
    return _is_uniform(array, members, encode)


def _is_masked_array(array: Any, members: Members, kind: Kind) -> bool:
    if not np.ma.is_masked(array):
        return _is_array(array.data, members, kind)
    if not members.has_fixed_types:
        is_number = array.dtype.kind in "biuf" and not _may_be_widened(array.data, members.starts)
        if not is_number or any(array.mask[part].all() for part in members.slices()):
            return False
    return _is_uniform(array, members, lambda part: of_array("", part, kind))


def _inferred_array(part: NDArray[Any]) -> Any:
    """What NumPy makes of the same values; ragged lists stay objects."""
    try:
        return np.array(part.tolist())
    except ValueError:
        return part


def _is_number_array(
    array: NDArray[Any], members: Members, kind: Kind, in_column: bool = False
) -> bool:
    dtype = number_type(kind)
    if dtype is not None:
        whole = cast(array, kind)
        if whole.dtype == dtype:
            return True
        if any(cast(array[part], kind).dtype != whole.dtype for part in members.slices()):
            return False
    return members.has_fixed_types or not _may_be_widened(
        array, members.starts, in_column=in_column
    )


def _is_column(column: pd.Series[Any], members: Members, kind: Kind) -> bool:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return _is_number_array(column.to_numpy(), members, kind, in_column=True)
    output = of_column("", column, kind)
    content_type = output.parameters.content_type if output.parameters is not None else None
    if isinstance(kind, DataType) and kind in _DECLARED and _DECLARED[kind] == content_type:
        return True
    if isinstance(kind, str) and content_type == PD_JSON:
        return True
    if (
        content_type in (STR, BASE64)
        and not column.isna().any()
        and not pd.api.types.is_timedelta64_dtype(dtype)
    ):
        return True  # every element is text, or bytes
    if not members.has_fixed_types:
        parts = [column.iloc[part] for part in members.slices()]
        if any(part.isna().all() for part in parts) or _are_widened(column, members):
            return False
    encode: Encode = lambda part: of_column("", part, kind)  # noqa: E731
    if dtype == np.dtype(object) and not members.has_fixed_types:
        return _is_uniform(column, members, encode, inferred=lambda part: pd.Series(part.tolist()))
    return _is_uniform(column, members, encode)


def _are_widened(column: pd.Series[Any], members: Members) -> bool:
    """Whether the numbers of a nullable, categorical or sparse column may have become others beside those of other rows."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # Categories that are equal are one: 1, 1.0 and True.
        return not all(isinstance(category, str) for category in dtype.categories)
    if pd.api.types.is_unsigned_integer_dtype(dtype) and getattr(dtype, "itemsize", 8) == 8:
        return _may_be_widened(
            column.to_numpy(dtype="u8", na_value=0), members.starts, in_column=True
        )
    if not pd.api.types.is_float_dtype(dtype):
        return False
    return _may_be_widened(
        column.astype(object).to_numpy(dtype="f8", na_value=np.nan), members.starts, in_column=True
    )


def _may_be_widened(array: NDArray[Any], starts: Sequence[int], in_column: bool = False) -> bool:
    """Whether some request's rows fit a narrower kind of dtype, of which other rows may have made this one.

    Args:
        in_column: pandas made it: NaN may be a missing value, and booleans beside numbers are objects.
    """
    rows = array.reshape(len(array), -1)
    kind = rows.dtype.kind
    if kind == "b" or not rows.size:
        return False
    if kind == "f":
        is_nan = np.isnan(rows)
        is_whole = (np.isfinite(rows) & (np.trunc(rows) == rows)) | (is_nan if in_column else False)
        return _has_member(is_whole, starts) or _has_member(is_nan, starts)
    if kind == "u":
        return rows.dtype.itemsize == 8 and _has_member(rows < 2**63, starts)
    return not in_column and _has_member((rows == 0) | (rows == 1), starts)


def _has_member(flags: NDArray[Any], starts: Sequence[int]) -> bool:
    """Whether a flag is set in all rows of some request."""
    return bool(np.logical_and.reduceat(flags.all(axis=1), starts).any())


def _are_numerals(texts: NDArray[Any]) -> bool:
    """Whether NumPy may have made these texts of numbers that stood beside text."""
    return all(_is_numeral(text) for text in texts.tolist())


def _is_numeral(text: str | bytes) -> bool:
    if text in ("True", "False", "None", b"True", b"False"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_uniform(
    values: Any, members: Members, encode: Encode, inferred: Callable[[Any], Any] | None = None
) -> bool:
    """Whether each request's part is encoded as in the whole.

    Args:
        inferred: Makes of a part of objects what NumPy or pandas make of the same values: the model may return either.
    """
    whole = encode(values)
    elements = _elements(whole)
    step = len(elements) // members.total
    for part in members.slices():
        own = values.iloc[part] if isinstance(values, pd.Series) else values[part]
        expected = elements[part.start * step : part.stop * step]
        variants = [own]
        if inferred is not None:
            variants.append(inferred(own))
        for variant in variants:
            output = encode(variant)
            if _head(output) != _head(whole) or _elements(output) != expected:
                return False
    return True


def _head(output: ResponseOutput) -> Any:
    content_type = output.parameters.content_type if output.parameters is not None else None
    return str(output.datatype), output.shape[1:], content_type


def _elements(output: ResponseOutput) -> list[Any]:
    """The elements, numbers as bytes: NaN equals itself and 0.0 is not -0.0."""
    data = output.data
    if str(output.datatype) == "BYTES":
        return list(data.root)
    array = data.to_array(str(output.datatype), output.shape).reshape(-1)
    raw, size = array.tobytes(), array.dtype.itemsize
    return [raw[at : at + size] for at in range(0, len(raw), size)]
