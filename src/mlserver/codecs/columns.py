"""One column of a DataFrame <-> one tensor: which datatype, content type and hints carry each pandas dtype.

| column | datatype | content type | hint `pandas_dtype` |
|---|---|---|---|
| NumPy numbers, bool | by dtype, NaN stays NaN | | |
| nullable, Arrow or sparse numbers | by dtype; with missing integers FP64 while exact, else JSON | (pd_json) | the dtype |
| text | BYTES | str; pd_json when values are missing | where the text is not pandas' default dtype |
| bytes | BYTES | str if UTF-8, else base64 | bytes |
| datetimes | BYTES, ISO 8601, NaT where missing | datetime | the dtype, with unit and zone |
| timedeltas | INT64, counts of the dtype's unit | | the dtype |
| categories | as their values; pd_json when values are missing | | category, with `pandas_categories` |
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
from .utils import get_decoded, has_decoded

DTYPE = "pandas_dtype"
CATEGORIES = "pandas_categories"

_TEXT = pd.Series(["text"]).dtype  # what this pandas makes of text: object, or its own string type
_EXACT = 2**53  # integers up to here are exact as FP64
_ARROW_TEXT = "arrow[string]"  # "string[pyarrow]" is what pandas calls another dtype


@dataclass(frozen=True, slots=True)
class Column:
    """What a tensor needs to carry a column; `content_type` None = numbers that speak for themselves."""

    datatype: str
    data: TensorData
    content_type: str | None = None
    hints: dict[str, str] = field(default_factory=dict)


def hint_of(tensor: RequestInput, key: str) -> Any:
    """An extra parameter of a tensor, else None."""
    extra = None if tensor.parameters is None else tensor.parameters.model_extra
    return extra.get(key) if extra else None


# -- column -> tensor --


def write_column(series: pd.Series[Any], use_bytes: bool = True) -> Column:
    """How a column travels.

    Raises:
        CodecError: nothing carries its dtype, or a value in it; the text names the type.
    """
    dtype: Any = series.dtype
    if isinstance(dtype, np.dtype):
        return _write_numpy(series, dtype, use_bytes)
    if isinstance(dtype, pd.CategoricalDtype):
        return _write_categories(series, dtype, use_bytes)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _write_datetimes(series, _name_of(dtype), use_bytes)
    if isinstance(dtype, pd.SparseDtype):
        dense = write_column(series.astype(dtype.subtype), use_bytes)
        return Column(dense.datatype, dense.data, dense.content_type, {DTYPE: str(dtype)})
    numbers = getattr(dtype, "numpy_dtype", None)
    if numbers is not None and numbers.kind in "biuf":
        return _write_nullable(series, numbers, use_bytes)
    if isinstance(dtype, pd.StringDtype | pd.PeriodDtype) or _name_of(dtype) == _ARROW_TEXT:
        hint = {} if dtype == _TEXT else {DTYPE: _name_of(dtype)}
        values = [
            None if gone else str(value) for value, gone in zip(series, series.isna(), strict=True)
        ]
        return _text(values, hint, _name_of(dtype), use_bytes)
    raise CodecError(
        f"no tensor can carry pandas' {dtype}; convert it to numbers, text or datetimes"
    )


def _write_numpy(series: pd.Series[Any], dtype: np.dtype[Any], use_bytes: bool) -> Column:
    if dtype.kind == "O":
        return _write_objects(series.tolist(), use_bytes)
    if dtype.kind == "M":
        return _write_datetimes(series, str(dtype), use_bytes)
    if dtype.kind == "m":
        return Column(
            "INT64", TensorData.from_array(series.to_numpy().view("i8")), None, {DTYPE: str(dtype)}
        )
    hint = {} if dtype.isnative else {DTYPE: dtype.str}
    return Column(to_datatype(dtype).value, TensorData.from_array(series.to_numpy()), None, hint)


def _write_nullable(series: pd.Series[Any], numbers: np.dtype[Any], use_bytes: bool) -> Column:
    """Numbers with pandas' missing values: as plain numbers wherever that loses nothing."""
    hints = {DTYPE: _name_of(series.dtype)}
    missing = bool(series.isna().any())
    if not missing or numbers.kind == "f":
        array = (
            series.to_numpy(dtype=numbers, na_value=np.nan)
            if missing
            else series.to_numpy(dtype=numbers)
        )
        return Column(to_datatype(numbers).value, TensorData.from_array(array), None, hints)
    known = series.dropna()
    if numbers.kind in "iu" and all(
        abs(int(bound)) <= _EXACT for bound in ([known.min(), known.max()] if len(known) else [])
    ):
        return Column(
            "FP64", TensorData.from_array(series.to_numpy(dtype="f8", na_value=np.nan)), None, hints
        )
    values = [None if gone else value for value, gone in zip(series, series.isna(), strict=True)]
    return _json(values, hints, use_bytes)


def _write_datetimes(series: pd.Series[Any], hint: str, use_bytes: bool) -> Column:
    texts = [
        MISSING if gone else value.isoformat()
        for value, gone in zip(series, series.isna(), strict=True)
    ]
    return Column("BYTES", _encoded(texts, use_bytes), DatetimeCodec.ContentType, {DTYPE: hint})


def _write_categories(
    series: pd.Series[Any], dtype: pd.CategoricalDtype, use_bytes: bool
) -> Column:
    listed = write_column(pd.Series(dtype.categories.array), use_bytes)
    note = {
        "dtype": listed.hints.get(DTYPE, _name_of(dtype.categories.dtype)),
        "values": _jsonable(dtype.categories),
        "ordered": bool(dtype.ordered),
    }
    hints = {DTYPE: "category", CATEGORIES: str(encode_to_json(note, use_bytes=False))}
    if series.isna().any():
        return _json(_jsonable(series), hints, use_bytes)
    values = write_column(series.astype(dtype.categories.dtype), use_bytes)
    return Column(values.datatype, values.data, values.content_type, hints)


def _write_objects(values: list[Any], use_bytes: bool) -> Column:
    """A column of Python objects: as text, bytes or datetimes if all are, else as JSON."""
    if all(isinstance(value, str) for value in values):
        return _text(
            values,
            {} if _TEXT.kind == "O" and isinstance(_TEXT, np.dtype) else {DTYPE: "object"},
            "object",
            use_bytes,
        )
    if all(isinstance(value, bytes) for value in values):
        if all(map(_is_utf8, values)):
            data = TensorData(values if use_bytes else [value.decode("utf-8") for value in values])
            return Column("BYTES", data, StringCodec.ContentType, {DTYPE: "bytes"})
        return Column(
            "BYTES", Base64Codec.encode_output("", values, use_bytes).data, Base64Codec.ContentType
        )
    if all(isinstance(value, str | bytes) for value in values):
        return _text([decode_str(value) for value in values], {}, "object", use_bytes)
    if all(isinstance(value, date) and not pd.isna(value) for value in values):
        exact = "datetime" if all(isinstance(value, datetime) for value in values) else "date"
        if exact == "datetime" or not any(isinstance(value, datetime) for value in values):
            texts = [value.isoformat() for value in values]
            return Column(
                "BYTES", _encoded(texts, use_bytes), DatetimeCodec.ContentType, {DTYPE: exact}
            )
    return _json(values, _missing_marker(values), use_bytes)


def _missing_marker(values: list[Any]) -> dict[str, str]:
    """JSON has one null: note what it stood for, unless that was None."""
    if any(isinstance(value, float) and math.isnan(value) for value in values):
        return {DTYPE: "object[nan]"}
    return {DTYPE: "object[NA]"} if any(value is pd.NA for value in values) else {}


def _text(values: list[Any], hints: dict[str, str], dtype: str, use_bytes: bool) -> Column:
    if any(value is None for value in values):
        return _json(values, {DTYPE: dtype}, use_bytes)
    return Column("BYTES", _encoded(values, use_bytes), StringCodec.ContentType, hints)


def _json(values: list[Any], hints: dict[str, str], use_bytes: bool) -> Column:
    return Column(
        "BYTES",
        JsonColumnCodec.encode_output("", values, use_bytes).data,
        JsonColumnCodec.ContentType,
        hints,
    )


def _encoded(texts: list[str], use_bytes: bool) -> TensorData:
    return TensorData([text.encode("utf-8") for text in texts] if use_bytes else texts)


def _jsonable(values: Any) -> list[Any]:
    return [
        None if pd.api.types.is_scalar(value) and pd.isna(value) else _json_value(value)
        for value in values
    ]


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _name_of(dtype: Any) -> str:
    """A text from which `_restore` makes the dtype again."""
    if isinstance(dtype, pd.StringDtype) and str(dtype) != "str":
        return f"string[{dtype.storage}]"
    if isinstance(dtype, pd.ArrowDtype) and str(dtype) == "string[pyarrow]":
        return _ARROW_TEXT
    return str(dtype)


# -- tensor -> column --


def read_column(tensor: RequestInput) -> Any:
    """A tensor's values as a one-dimensional array, NumPy's or pandas'.

    Raises:
        CodecError: the values do not fit, or there is not one per row.
    """
    try:
        hint = None if tensor.parameters is None else hint_of(tensor, DTYPE)
        if hint is not None:
            return _restore(_carried(tensor), str(hint), hint_of(tensor, CATEGORIES))
        if has_decoded(tensor):
            return _inferred(get_decoded(tensor), tensor)
        if not is_bytes(tensor):
            return _flat(NumpyCodec.decode_input(tensor))
        return _inferred(_decoded(tensor), tensor)
    except CodecError as error:
        raise CodecError(f"column '{tensor.name}': {error.reason}") from None


def _decoded(tensor: RequestInput) -> Any:
    """The values of a BYTES tensor by its own content type, else its elements."""
    content_type = None if tensor.parameters is None else tensor.parameters.content_type
    codec = find_input_codec(content_type) if content_type else None
    return elements(tensor) if codec is None else codec.decode_input(tensor)


def _inferred(values: Any, tensor: RequestInput) -> Any:
    """Decoded values as a column of the dtype that pandas would give them."""
    content_type = None if tensor.parameters is None else tensor.parameters.content_type
    if isinstance(values, np.ndarray):
        array = _flat(values)
        return pd.Series(array.tolist(), dtype=_TEXT).array if array.dtype.kind == "U" else array
    if not isinstance(values, list):
        return pd.Series(values).array
    if content_type != JsonColumnCodec.ContentType:
        if all(isinstance(value, str) or value is None for value in values):
            return pd.Series(values, dtype=_TEXT).array
        if all(isinstance(value, datetime) or value is None for value in values):
            return pd.Series(values).array
    return _objects(values)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    rows = array.shape[0] if array.ndim else 1
    if array.size != rows:
        raise CodecError(
            f"expected one value per row (shape [N] or [N, 1]), received shape {list(array.shape)}"
        )
    return array.reshape(rows)


def as_declared(column: Any) -> Any:
    """The column such that pandas keeps its dtype: it would look into an object array and find another."""
    return pd.Series(column, dtype=object) if column.dtype == np.dtype(object) else column


def _objects(values: list[Any]) -> NDArray[Any]:
    """An object array of exactly these values, also if they are lists."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array


# -- hinted columns --


def _carried(tensor: RequestInput) -> Any:
    """The values as they travelled: an array of numbers, or a list of texts, bytes or JSON objects."""
    if not is_bytes(tensor):
        return _flat(NumpyCodec.decode_input(tensor))
    content_type = None if tensor.parameters is None else tensor.parameters.content_type
    if content_type == JsonColumnCodec.ContentType:
        return JsonColumnCodec.decode_input(tensor)
    if content_type == Base64Codec.ContentType:
        return Base64Codec.decode_input(tensor)
    return StringCodec.decode_input(tensor)


def _restore(values: Any, hint: str, categories: Any = None) -> Any:
    """Values that travelled -> an array of the dtype they had."""
    try:
        if hint in _OBJECTS:
            return _objects([_OBJECTS[hint](value) for value in values])
        if hint == "category":
            return _restore_categories(values, categories)
        if hint == _ARROW_TEXT:
            return pd.array(values, dtype=_arrow_text())
        dtype = _allowed(pd.api.types.pandas_dtype(hint))
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


def _allowed(dtype: Any) -> Any:
    """Refuse what a caller's hint must not ask for: dtypes of a width of their own choosing take memory at will."""
    plain = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
    if isinstance(plain, np.dtype) and plain.kind not in "biufMm":
        raise TypeError(f"{dtype} is not a dtype of columns")
    return dtype


def _restore_datetimes(values: Any, dtype: Any) -> Any:
    texts = [None if value is None or value == MISSING else value for value in values]
    if isinstance(dtype, np.dtype):
        return np.array(texts, dtype=dtype)
    found = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, format="ISO8601")
    return found.astype(dtype).array


def _restore_categories(values: Any, note: Any) -> pd.Categorical:
    described = decode_from_bytelike_json_to_dict(note)
    if not isinstance(described, dict) or not isinstance(described.get("values"), list):
        raise CodecError(f"parameter {CATEGORIES} does not list the categories")
    kind = str(described.get("dtype", "object"))
    dtype = pd.CategoricalDtype(
        pd.Index(as_declared(_restore(described["values"], kind))),
        ordered=bool(described.get("ordered")),
    )
    found = [None if value is None else value for value in values]
    known = [value is not None for value in found]
    inner = _restore([value for value in found if value is not None], kind)
    codes = np.full(len(found), -1, dtype="i8")
    codes[known] = dtype.categories.get_indexer(pd.Index(as_declared(inner)))
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _arrow_text() -> pd.ArrowDtype:
    import pyarrow

    return pd.ArrowDtype(pyarrow.string())


def _as_datetime(value: Any) -> Any:
    return datetime.fromisoformat(value)


_OBJECTS: dict[str, Any] = {
    "object": lambda value: value,
    "object[nan]": lambda value: math.nan if value is None else value,
    "object[NA]": lambda value: pd.NA if value is None else value,
    "bytes": lambda value: value.encode("utf-8"),
    "datetime": _as_datetime,
    "date": date.fromisoformat,
}
