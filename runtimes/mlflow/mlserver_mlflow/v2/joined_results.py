"""Check that a joint result, encoded as a whole, gives every request its own response unchanged.

Encodings depend on values, and so do the dtypes that NumPy and pandas infer: an integer beside a
fraction becomes a float, text beside a number an object. A joint result is separable only if the
rows of every request, encoded alone, have the datatype, content type and elements of the whole, and
if no row of another request can have widened their dtype. Requests of other results are predicted
one by one (`CannotBatch`).

Fixed dtypes (text, booleans, numbers of libraries that fix the dtype in training, declared outputs)
need at most one pass over the array; other results are encoded a second time, request by request.
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

from .declared_outputs import DeclaredOutputs, DeclaredType, cast, get_number_dtype
from .output_values import (
    BASE64,
    DATETIME,
    PD_JSON,
    STR,
    encode_array,
    encode_column,
    encode_list,
    get_column_names,
)
from .plain_values import format_label

# Declared type -> content type of its columns, with and without missing values.
_DECLARED_CONTENT_TYPES = {
    DataType.string: STR,
    DataType.binary: BASE64,
    DataType.datetime: DATETIME,
}
Encode = Callable[[Any], ResponseOutput]


@dataclass(frozen=True)
class BatchLayout:
    """Rows of each request in a batch.

    Attributes:
        rows_per_request: Number of rows of each request.
        has_fixed_types: Whether the dtype of the model's results is independent of values.
    """

    rows_per_request: Sequence[int]
    has_fixed_types: bool

    @property
    def total_rows(self) -> int:
        """Number of rows in the batch."""
        return sum(self.rows_per_request)

    @property
    def starts(self) -> list[int]:
        """First row of each request."""
        return [0, *accumulate(self.rows_per_request)][:-1]

    def slices(self) -> list[slice]:
        """Return the rows of each request."""
        ranges = zip(self.starts, self.rows_per_request, strict=True)
        return [slice(start, start + count) for start, count in ranges]


def is_separable(result: Any, layout: BatchLayout, declared: DeclaredOutputs) -> bool:
    """Whether the rows of each request are encoded as they are alone.

    True for a result with another number of rows than the batch: the scheduler does not split it.
    """
    single = declared.single if declared.single is not None else declared.common
    if isinstance(result, pd.DataFrame):
        if len(result) != layout.total_rows:
            return True
        return all(
            _is_separable_column(result.iloc[:, index], layout, declared.get_type(name))
            for index, name in enumerate(get_column_names(result))
        )
    if isinstance(result, dict):
        return all(
            _is_separable_value(value, layout, declared.get_type(format_label(key)))
            for key, value in result.items()
        )
    if hasattr(result, "toarray") and hasattr(result, "nnz"):
        result = result.toarray()
    if type(result).__module__.partition(".")[0] == "polars":
        return False
    if isinstance(result, pd.Series):
        single = declared.get_type(str(result.name)) or declared.single
    return _is_separable_value(result, layout, single)


def _is_separable_value(value: Any, layout: BatchLayout, kind: DeclaredType) -> bool:
    if isinstance(value, pd.Series):
        return len(value) != layout.total_rows or _is_separable_column(value, layout, kind)
    if isinstance(value, np.ndarray):
        if not value.ndim or len(value) != layout.total_rows:
            return True
        return _is_separable_array(value, layout, kind)
    if isinstance(value, list | tuple):
        if len(value) != layout.total_rows:
            return True
        return _is_uniform(list(value), layout, lambda part: encode_list("", part, kind))
    return True


def _is_separable_array(array: NDArray[Any], layout: BatchLayout, kind: DeclaredType) -> bool:
    if isinstance(array, np.ma.MaskedArray):
        return _is_separable_masked_array(array, layout, kind)
    if array.dtype.kind in "biuf":
        return _is_separable_number_array(array, layout, kind)
    if array.dtype.kind in "US":
        return layout.has_fixed_types or not any(
            _are_numerals(array[part].ravel()) for part in layout.slices()
        )
    if array.dtype.kind == "M" and not layout.has_fixed_types:
        return False  # NumPy selects the unit of the finest element
    encode: Encode = lambda part: encode_array("", part, kind)  # noqa: E731
    if array.dtype.kind == "O" and not layout.has_fixed_types:
        return _is_uniform(array, layout, encode, infer=_infer_array)
    return _is_uniform(array, layout, encode)


def _is_separable_masked_array(array: Any, layout: BatchLayout, kind: DeclaredType) -> bool:
    if not np.ma.is_masked(array):
        return _is_separable_array(array.data, layout, kind)
    if not layout.has_fixed_types:
        is_number = array.dtype.kind in "biuf" and not _may_be_widened(array.data, layout.starts)
        if not is_number or any(array.mask[part].all() for part in layout.slices()):
            return False
    return _is_uniform(array, layout, lambda part: encode_array("", part, kind))


def _infer_array(part: NDArray[Any]) -> Any:
    """Return NumPy's array of the same values; ragged lists stay objects."""
    try:
        return np.array(part.tolist())
    except ValueError:
        return part


def _is_separable_number_array(
    array: NDArray[Any], layout: BatchLayout, kind: DeclaredType, in_column: bool = False
) -> bool:
    dtype = get_number_dtype(kind)
    if dtype is not None:
        whole = cast(array, kind)
        if whole.dtype == dtype:
            return True
        if any(cast(array[part], kind).dtype != whole.dtype for part in layout.slices()):
            return False
    return layout.has_fixed_types or not _may_be_widened(array, layout.starts, in_column=in_column)


def _is_separable_column(column: pd.Series[Any], layout: BatchLayout, kind: DeclaredType) -> bool:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return _is_separable_number_array(column.to_numpy(), layout, kind, in_column=True)
    output = encode_column("", column, kind)
    content_type = output.parameters.content_type if output.parameters is not None else None
    if (
        isinstance(kind, DataType)
        and kind in _DECLARED_CONTENT_TYPES
        and _DECLARED_CONTENT_TYPES[kind] == content_type
    ):
        return True
    if isinstance(kind, str) and content_type == PD_JSON:
        return True
    is_timedelta = pd.api.types.is_timedelta64_dtype(dtype)
    if content_type in (STR, BASE64) and not is_timedelta and not column.isna().any():
        return True  # every element is text, or every element is bytes
    if not layout.has_fixed_types:
        parts = [column.iloc[part] for part in layout.slices()]
        if any(part.isna().all() for part in parts) or _may_be_widened_column(column, layout):
            return False
    encode: Encode = lambda part: encode_column("", part, kind)  # noqa: E731
    if dtype == np.dtype(object) and not layout.has_fixed_types:
        return _is_uniform(column, layout, encode, infer=lambda part: pd.Series(part.tolist()))
    return _is_uniform(column, layout, encode)


def _may_be_widened_column(column: pd.Series[Any], layout: BatchLayout) -> bool:
    """Whether other rows may have changed the numbers of a nullable or categorical column."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # Equal categories are merged: 1, 1.0 and True.
        return not all(isinstance(category, str) for category in dtype.categories)
    if pd.api.types.is_unsigned_integer_dtype(dtype) and getattr(dtype, "itemsize", 8) == 8:
        integers = column.to_numpy(dtype="u8", na_value=0)
        return _may_be_widened(integers, layout.starts, in_column=True)
    if not pd.api.types.is_float_dtype(dtype):
        return False
    floats = column.astype(object).to_numpy(dtype="f8", na_value=np.nan)
    return _may_be_widened(floats, layout.starts, in_column=True)


def _may_be_widened(array: NDArray[Any], starts: Sequence[int], in_column: bool = False) -> bool:
    """Whether the rows of a request fit a narrower dtype, which other rows may have widened.

    Args:
        in_column: The array is a pandas column, in which NaN may be a missing value, and booleans
            beside numbers are objects.
    """
    rows = array.reshape(len(array), -1)
    kind = rows.dtype.kind
    if kind == "b" or not rows.size:
        return False
    if kind == "f":
        is_nan = np.isnan(rows)
        is_whole = np.isfinite(rows) & (np.trunc(rows) == rows)
        if in_column:
            is_whole |= is_nan
        return _is_set_for_a_request(is_whole, starts) or _is_set_for_a_request(is_nan, starts)
    if kind == "u":
        return rows.dtype.itemsize == 8 and _is_set_for_a_request(rows < 2**63, starts)
    return not in_column and _is_set_for_a_request((rows == 0) | (rows == 1), starts)


def _is_set_for_a_request(flags: NDArray[Any], starts: Sequence[int]) -> bool:
    """Whether the flags of all rows of a request are set."""
    return bool(np.logical_and.reduceat(flags.all(axis=1), starts).any())


def _are_numerals(texts: NDArray[Any]) -> bool:
    """Whether all texts may be numbers that NumPy converted because of text in other rows."""
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
    values: Any, layout: BatchLayout, encode: Encode, infer: Callable[[Any], Any] | None = None
) -> bool:
    """Whether the rows of each request, encoded alone, equal their part of the whole.

    Args:
        infer: Returns objects as NumPy or pandas infer them: a model may return either for one
            request.
    """
    whole = encode(values)
    elements = _get_elements(whole)
    step = len(elements) // layout.total_rows
    for rows in layout.slices():
        part = values.iloc[rows] if isinstance(values, pd.Series) else values[rows]
        expected = elements[rows.start * step : rows.stop * step]
        variants = [part]
        if infer is not None:
            variants.append(infer(part))
        for variant in variants:
            output = encode(variant)
            if _get_layout(output) != _get_layout(whole) or _get_elements(output) != expected:
                return False
    return True


def _get_layout(output: ResponseOutput) -> Any:
    content_type = output.parameters.content_type if output.parameters is not None else None
    return str(output.datatype), output.shape[1:], content_type


def _get_elements(output: ResponseOutput) -> list[Any]:
    """Return the elements, numbers as bytes, in which NaN equals itself and 0.0 is not -0.0."""
    data = output.data
    if str(output.datatype) == "BYTES":
        return list(data.root)
    array = data.to_array(str(output.datatype), output.shape).reshape(-1)
    raw, size = array.tobytes(), array.dtype.itemsize
    return [raw[start : start + size] for start in range(0, len(raw), size)]
