"""DataFrame columns <-> tensors: the datatype, content type and hints of each pandas dtype.

| column | datatype | content type | hint `pandas_dtype` |
|---|---|---|---|
| NumPy numbers, bool | by dtype, NaN stays NaN | | |
| nullable, Arrow or sparse numbers | by dtype; missing integers: FP64 if exact | | dtype |
| integers with missing values over 2**53 | BYTES, JSON | pd_json | dtype |
| text | BYTES | str; pd_json if some are missing | if not pandas' default dtype |
| bytes | BYTES | str if UTF-8, else base64 | bytes |
| datetimes | BYTES, ISO 8601, NaT where missing | datetime | dtype with unit and zone |
| timedeltas | INT64, counts of the dtype's unit | | dtype |
| categories | as their values; pd_json if some are missing | | category, `pandas_categories` |
| any other objects | BYTES, JSON | pd_json | |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..tensor import brief
from ..types import RequestInput, TensorData
from .base import find_input_codec
from .base64 import Base64Codec
from .datetime import MISSING, DatetimeCodec
from .errors import CodecError, type_name
from .json import JsonColumnCodec, decode_from_bytelike_json_to_dict, encode_to_json
from .lists import elements, is_bytes
from .numpy import NumpyCodec, to_datatype
from .string import StringCodec, decode_str
from .utils import get_content_type, get_decoded, has_decoded

DTYPE = "pandas_dtype"
CATEGORIES = "pandas_categories"

_TEXT = pd.Series(["text"]).dtype  # dtype of text in this pandas: object, or its string dtype
_EXACT = 2**53  # integers up to here are exact as FP64
_ARROW_TEXT = "arrow[string]"  # "string[pyarrow]" names another dtype in pandas


@dataclass(frozen=True, slots=True)
class Column:
    """The encoding of a column; `content_type` is None for numbers, `hints` are parameters."""

    datatype: str
    data: TensorData
    content_type: str | None = None
    hints: dict[str, str] = field(default_factory=dict)

    @property
    def encoding(self) -> tuple[str, str | None, dict[str, str]]:
        """All but the data."""
        return self.datatype, self.content_type, self.hints


def get_hint(tensor: RequestInput, key: str) -> Any:
    """Return an extra parameter of a tensor, else None."""
    extra = None if tensor.parameters is None else tensor.parameters.model_extra
    return extra.get(key) if extra else None


# -- column -> tensor --


def write_column(series: pd.Series[Any], use_bytes: bool = True) -> Column:
    """Return the encoding of a column.

    Raises:
        CodecError: no tensor can hold its dtype or a value; the text names the type.
    """
    dtype: Any = series.dtype
    if isinstance(dtype, np.dtype):
        return _write_numpy(series, dtype, use_bytes)
    if isinstance(dtype, pd.CategoricalDtype):
        return _write_categories(series, dtype, use_bytes)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _write_datetimes(series, _dtype_name(dtype), use_bytes)
    if isinstance(dtype, pd.SparseDtype):
        dense = write_column(series.astype(dtype.subtype), use_bytes)
        return Column(dense.datatype, dense.data, dense.content_type, {DTYPE: str(dtype)})
    numbers = getattr(dtype, "numpy_dtype", None)
    if numbers is not None and numbers.kind in "biuf":
        return _write_nullable(series, numbers, use_bytes)
    if isinstance(dtype, pd.StringDtype | pd.PeriodDtype) or _dtype_name(dtype) == _ARROW_TEXT:
        hint = {} if dtype == _TEXT else {DTYPE: _dtype_name(dtype)}
        pairs = zip(series, series.isna(), strict=True)
        texts = [None if is_missing else str(value) for value, is_missing in pairs]
        return _write_text(texts, hint, _dtype_name(dtype), use_bytes)
    raise CodecError(
        f"no tensor can hold pandas' {dtype}; convert it to numbers, text or datetimes"
    )


def _write_numpy(series: pd.Series[Any], dtype: np.dtype[Any], use_bytes: bool) -> Column:
    if dtype.kind == "O":
        return _write_objects(series.tolist(), use_bytes)
    if dtype.kind == "M":
        return _write_datetimes(series, str(dtype), use_bytes)
    if dtype.kind == "m":
        counts = series.to_numpy().view("i8")
        return Column("INT64", TensorData.from_array(counts), None, {DTYPE: str(dtype)})
    hint = {} if dtype.isnative else {DTYPE: dtype.str}
    return Column(to_datatype(dtype).value, TensorData.from_array(series.to_numpy()), None, hint)


def _write_nullable(series: pd.Series[Any], numbers: np.dtype[Any], use_bytes: bool) -> Column:
    """Return the encoding of nullable numbers: plain numbers if that is exact, else JSON."""
    hints = {DTYPE: _dtype_name(series.dtype)}
    has_missing = bool(series.isna().any())
    if not has_missing or numbers.kind == "f":
        options: dict[str, Any] = {"na_value": np.nan} if has_missing else {}
        array = series.to_numpy(dtype=numbers, **options)
        return Column(to_datatype(numbers).value, TensorData.from_array(array), None, hints)
    if numbers.kind in "iu" and _is_exact_as_float(series.dropna()):
        array = series.to_numpy(dtype="f8", na_value=np.nan)
        return Column("FP64", TensorData.from_array(array), None, hints)
    pairs = zip(series, series.isna(), strict=True)
    values = [None if is_missing else value for value, is_missing in pairs]
    return _write_json(values, hints, use_bytes)


def _is_exact_as_float(integers: pd.Series[Any]) -> bool:
    if not len(integers):
        return True
    return max(abs(int(integers.min())), abs(int(integers.max()))) <= _EXACT


def _write_datetimes(series: pd.Series[Any], hint: str, use_bytes: bool) -> Column:
    pairs = zip(series, series.isna(), strict=True)
    texts = [MISSING if is_missing else value.isoformat() for value, is_missing in pairs]
    return Column(
        "BYTES", _encode_texts(texts, use_bytes), DatetimeCodec.ContentType, {DTYPE: hint}
    )


def _write_categories(
    series: pd.Series[Any], dtype: pd.CategoricalDtype, use_bytes: bool
) -> Column:
    categories = write_column(pd.Series(dtype.categories.array), use_bytes)
    note = {
        "dtype": categories.hints.get(DTYPE, _dtype_name(dtype.categories.dtype)),
        "values": _to_json_values(dtype.categories),
        "ordered": bool(dtype.ordered),
    }
    hints = {DTYPE: "category", CATEGORIES: str(encode_to_json(note, use_bytes=False))}
    if series.isna().any():
        return _write_json(_to_json_values(series), hints, use_bytes)
    values = write_column(series.astype(dtype.categories.dtype), use_bytes)
    return Column(values.datatype, values.data, values.content_type, hints)


def _write_objects(values: list[Any], use_bytes: bool) -> Column:
    """Return the encoding of objects: text, bytes or datetimes if all are, else JSON."""
    if all(isinstance(value, str) for value in values):
        is_default = isinstance(_TEXT, np.dtype) and _TEXT.kind == "O"
        return _write_text(values, {} if is_default else {DTYPE: "object"}, "object", use_bytes)
    if all(isinstance(value, bytes) for value in values):
        return _write_bytes(values, use_bytes)
    if all(isinstance(value, str | bytes) for value in values):
        return _write_text([decode_str(value) for value in values], {}, "object", use_bytes)
    if all(isinstance(value, date) and not pd.isna(value) for value in values):
        are_datetimes = {isinstance(value, datetime) for value in values}
        if len(are_datetimes) <= 1:
            hint = "date" if False in are_datetimes else "datetime"
            data = _encode_texts([value.isoformat() for value in values], use_bytes)
            return Column("BYTES", data, DatetimeCodec.ContentType, {DTYPE: hint})
    return _write_json(values, _missing_marker(values), use_bytes)


def _write_bytes(values: list[bytes], use_bytes: bool) -> Column:
    if not all(map(_is_utf8, values)):
        data = Base64Codec.encode_output("", values, use_bytes).data
        return Column("BYTES", data, Base64Codec.ContentType)
    data = TensorData(values if use_bytes else [value.decode("utf-8") for value in values])
    return Column("BYTES", data, StringCodec.ContentType, {DTYPE: "bytes"})


def _missing_marker(values: list[Any]) -> dict[str, str]:
    """Return the hint of the missing value that JSON's null replaces; empty for None."""
    if any(isinstance(value, float) and math.isnan(value) for value in values):
        return {DTYPE: "object[nan]"}
    return {DTYPE: "object[NA]"} if any(value is pd.NA for value in values) else {}


def _write_text(values: list[Any], hints: dict[str, str], dtype: str, use_bytes: bool) -> Column:
    if any(value is None for value in values):
        return _write_json(values, {DTYPE: dtype}, use_bytes)
    return Column("BYTES", _encode_texts(values, use_bytes), StringCodec.ContentType, hints)


def _write_json(values: list[Any], hints: dict[str, str], use_bytes: bool) -> Column:
    data = JsonColumnCodec.encode_output("", values, use_bytes).data
    return Column("BYTES", data, JsonColumnCodec.ContentType, hints)


def _encode_texts(texts: list[str], use_bytes: bool) -> TensorData:
    return TensorData([text.encode("utf-8") for text in texts] if use_bytes else texts)


def _to_json_values(values: Any) -> list[Any]:
    return [_to_json_value(value) for value in values]


def _to_json_value(value: Any) -> Any:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, date) else value


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _dtype_name(dtype: Any) -> str:
    """Return a name from which `_restore` can build the dtype."""
    if isinstance(dtype, pd.StringDtype) and str(dtype) != "str":
        return f"string[{dtype.storage}]"
    if isinstance(dtype, pd.ArrowDtype) and str(dtype) == "string[pyarrow]":
        return _ARROW_TEXT
    return str(dtype)


# -- tensor -> column --


def read_column(tensor: RequestInput) -> Any:
    """Return a tensor's values as a one-dimensional NumPy or pandas array.

    Raises:
        CodecError: the values do not fit, or there is not one per row.
    """
    try:
        hint = None if tensor.parameters is None else get_hint(tensor, DTYPE)
        if hint is not None:
            return _restore(_read_values(tensor), str(hint), get_hint(tensor, CATEGORIES))
        if has_decoded(tensor):
            return _infer_column(get_decoded(tensor), tensor)
        if not is_bytes(tensor):
            return _flatten(NumpyCodec.decode_input(tensor))
        return _infer_column(_decode_bytes(tensor), tensor)
    except CodecError as error:
        raise CodecError(f"column '{tensor.name}': {error.reason}") from None


def _decode_bytes(tensor: RequestInput) -> Any:
    """Return the values of a BYTES tensor by its content type, else its elements."""
    content_type = get_content_type(tensor)
    codec = find_input_codec(content_type) if content_type else None
    return elements(tensor) if codec is None else codec.decode_input(tensor)


def _infer_column(values: Any, tensor: RequestInput) -> Any:
    """Return decoded values as a column of the dtype that pandas infers."""
    content_type = get_content_type(tensor)
    if isinstance(values, np.ndarray):
        array = _flatten(values)
        return pd.Series(array.tolist(), dtype=_TEXT).array if array.dtype.kind == "U" else array
    if not isinstance(values, list):
        return pd.Series(values).array
    if content_type != JsonColumnCodec.ContentType:
        if all(isinstance(value, str) or value is None for value in values):
            return pd.Series(values, dtype=_TEXT).array
        if all(isinstance(value, datetime) or value is None for value in values):
            return pd.Series(values).array
    return _to_objects(values)


def _flatten(array: NDArray[Any]) -> NDArray[Any]:
    rows = array.shape[0] if array.ndim else 1
    if array.size != rows:
        raise CodecError(
            f"expected one value per row (shape [N] or [N, 1]), received shape {list(array.shape)}"
        )
    return array.reshape(rows)


def as_declared(column: Any) -> Any:
    """Return the column as a Series of objects if it holds objects: pandas would infer a dtype."""
    return pd.Series(column, dtype=object) if column.dtype == np.dtype(object) else column


def _to_objects(values: list[Any]) -> NDArray[Any]:
    """Return an object array of these values, which may be lists."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


# -- hinted columns --


def _read_values(tensor: RequestInput) -> Any:
    """Return the values without the hint: an array of numbers, or texts, bytes or JSON objects."""
    if not is_bytes(tensor):
        return _flatten(NumpyCodec.decode_input(tensor))
    content_type = get_content_type(tensor)
    if content_type == JsonColumnCodec.ContentType:
        return JsonColumnCodec.decode_input(tensor)
    if content_type == Base64Codec.ContentType:
        return Base64Codec.decode_input(tensor)
    return StringCodec.decode_input(tensor)


def _restore(values: Any, hint: str, categories: Any = None) -> Any:
    """Return values as an array of the hinted dtype."""
    try:
        if hint in _OBJECTS:
            return _to_objects([_OBJECTS[hint](value) for value in values])
        if hint == "category":
            return _restore_categories(values, categories)
        if hint == _ARROW_TEXT:
            return pd.array(values, dtype=_arrow_text())
        dtype = _check_dtype(pd.api.types.pandas_dtype(hint))
        if isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M":
            return _restore_datetimes(values, dtype)
        if dtype.kind == "m":
            return np.asarray(values, dtype="i8").view(dtype)
        if isinstance(dtype, np.dtype):
            return np.asarray(values, dtype=dtype)
        return pd.array(values, dtype=dtype)
    except (
        TypeError,
        ValueError,
        LookupError,
        ImportError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise CodecError(
            f"values {brief(values)} are not of {DTYPE} {hint!r} ({type_name(type(error))})"
        ) from None


def _check_dtype(dtype: Any) -> Any:
    """Return the dtype of a client's hint.

    Raises:
        TypeError: it is not a dtype of columns; text and void dtypes choose their width, and so
            the memory of the array.
    """
    plain = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
    if isinstance(plain, np.dtype) and plain.kind not in "biufMm":
        raise TypeError(f"{dtype} is not a dtype of columns")
    return dtype


def _restore_datetimes(values: Any, dtype: Any) -> Any:
    texts = [None if value is None or value == MISSING else value for value in values]
    if isinstance(dtype, np.dtype):
        return np.array(texts, dtype=dtype)
    datetimes = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, format="ISO8601")
    return datetimes.astype(dtype).array


def _restore_categories(values: Any, note: Any) -> pd.Categorical:
    declared = decode_from_bytelike_json_to_dict(note)
    if not isinstance(declared, dict) or not isinstance(declared.get("values"), list):
        raise CodecError(f"parameter {CATEGORIES} does not list the categories")
    kind = str(declared.get("dtype", "object"))
    dtype = pd.CategoricalDtype(
        pd.Index(as_declared(_restore(declared["values"], kind))),
        ordered=bool(declared.get("ordered")),
    )
    is_present = [value is not None for value in values]
    inner = _restore([value for value in values if value is not None], kind)
    codes = np.full(len(is_present), -1, dtype="i8")
    codes[is_present] = dtype.categories.get_indexer(pd.Index(as_declared(inner)))
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _arrow_text() -> pd.ArrowDtype:
    import pyarrow

    return pd.ArrowDtype(pyarrow.string())


_OBJECTS: dict[str, Any] = {
    "object": lambda value: value,
    "object[nan]": lambda value: value if value is not None else math.nan,
    "object[NA]": lambda value: (value, pd.NA)[value is None],
    "bytes": lambda value: value.encode("utf-8"),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}
