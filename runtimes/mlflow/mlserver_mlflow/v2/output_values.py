"""V2 outputs from values of every type that a model's `predict` returns.

Numbers become tensors of their own datatype; text, bytes, datetimes and JSON values become BYTES
with the content type that decodes them.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from mlflow.types import DataType
from numpy.typing import NDArray

from mlserver.types import Parameters, ResponseOutput, TensorData

from ..metadata import TENSOR_DATATYPES
from .declared_outputs import DeclaredOutputs, DeclaredType, cast, get_number_dtype
from .plain_values import (
    NotEncodableError,
    format_datetime,
    format_duration,
    format_label,
    is_missing,
    to_json,
    to_plain,
)

NP, STR, BASE64, DATETIME, PD_JSON = "np", "str", "base64", "datetime", "pd_json"


def build_output(
    name: str, datatype: str, shape: Sequence[int], data: TensorData, content_type: str | None
) -> ResponseOutput:
    """Build a response output without validation."""
    values = {
        "name": name,
        "shape": list(shape),
        "datatype": datatype,
        "parameters": build_parameters(content_type),
        "data": data,
    }
    return ResponseOutput.build(values)


def build_parameters(content_type: str | None) -> Parameters | None:
    """Build the parameters of a content type; None without one."""
    if content_type is None:
        return None
    return Parameters.build({"content_type": content_type, "headers": None})


def encode_array(name: str, array: NDArray[Any], kind: DeclaredType = None) -> ResponseOutput:
    """Encode an array of any dtype."""
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        return _encode_masked_array(name, array, kind)
    shape = _get_shape_of_array(array)
    if kind is not None:
        array = cast(array, kind)
    datatype = TENSOR_DATATYPES.get((array.dtype.kind, array.dtype.itemsize))
    if datatype is not None:
        return build_output(name, datatype, shape, TensorData.from_array(array), NP)
    flat = array.ravel()
    if array.dtype.kind == "f":
        return build_output(name, "FP64", shape, TensorData.from_array(_to_doubles(array)), NP)
    if array.dtype.kind in "US":
        is_declared = isinstance(kind, DataType) and kind == DataType.string
        content_type = STR if is_declared and array.dtype.kind == "U" else NP
        texts = TensorData([_to_bytes(item) for item in flat.tolist()])
        return build_output(name, "BYTES", shape, texts, content_type)
    if array.dtype.kind == "M":
        return build_output(name, "BYTES", shape, _to_text_data(map(str, flat)), DATETIME)
    if array.dtype.kind == "m":
        return build_output(
            name, "BYTES", shape, _to_text_data(pd.Series(flat).map(format_duration)), STR
        )
    if array.dtype.kind == "O":
        return _encode_object_array(name, flat.tolist(), shape, kind)
    raise NotEncodableError(flat[0] if flat.size else array)


def _get_shape_of_array(array: NDArray[Any]) -> list[int]:
    """Return the V2 shape: [n] becomes [n, 1], a scalar [1]."""
    return [*array.shape, 1] if array.ndim == 1 else [*array.shape] or [1]


def _encode_object_array(
    name: str, items: list[Any], shape: Sequence[int], kind: DeclaredType
) -> ResponseOutput:
    is_tensor = isinstance(kind, np.dtype)
    is_text = all(isinstance(item, str) or (is_tensor and item is None) for item in items)
    if is_text and (kind is None or is_tensor):
        texts = [None if item is None else _to_bytes(item) for item in items]
        return build_output(name, "BYTES", shape, TensorData(texts), NP)
    return _encode_objects(name, items, shape, kind)


def _encode_masked_array(name: str, array: Any, kind: DeclaredType) -> ResponseOutput:
    """Encode a masked array: masked floats as NaN, other masked elements as JSON null."""
    if not np.ma.is_masked(array):
        return encode_array(name, array.data, kind)
    if array.dtype.kind == "f":
        return encode_array(name, array.filled(np.nan), kind)
    return _encode_objects(
        name, array.astype(object).ravel().tolist(), _get_shape_of_array(array), kind
    )


def _to_doubles(array: NDArray[Any]) -> NDArray[Any]:
    """Convert long doubles to FP64. Raises `NotEncodableError` if FP64 does not hold them."""
    doubles = array.astype("f8")
    if not np.array_equal(doubles.astype(array.dtype), array, equal_nan=True):
        raise NotEncodableError(array.ravel()[0])
    return doubles


def encode_frame(
    frame: pd.DataFrame, declared: DeclaredOutputs | None = None
) -> list[ResponseOutput]:
    """Encode a frame as one output per column."""
    types = declared or DeclaredOutputs()
    return [
        encode_column(name, frame.iloc[:, index], types.get_type(name))
        for index, name in enumerate(get_column_names(frame))
    ]


def get_column_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of a frame's outputs; equal labels get their position as a suffix."""
    labels = [format_label(item) for item in frame.columns]
    return [
        text if labels.count(text) == 1 else f"{text}_{index}" for index, text in enumerate(labels)
    ]


def encode_column(name: str, column: pd.Series[Any], kind: DeclaredType = None) -> ResponseOutput:
    """Encode a column; a numeric one has no content type, the response's `pd` decodes it."""
    shape = [len(column), 1]
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = column.astype(object if column.hasnans else dtype.categories.dtype)
        dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return _encode_number_column(name, column.to_numpy(), kind)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return build_output(
            name, "BYTES", shape, _to_text_data(format_datetime(item) for item in column), DATETIME
        )
    if pd.api.types.is_timedelta64_dtype(dtype):
        return build_output(
            name, "BYTES", shape, _to_text_data(format_duration(item) for item in column), STR
        )
    if not isinstance(dtype, np.dtype) and pd.api.types.is_numeric_dtype(dtype):
        output = _encode_nullable_column(name, column, kind)
        if output is not None:
            return output
    items = [None if is_missing(item) else item for item in column.tolist()]
    return _encode_objects(name, items, shape, kind, None)


def _encode_number_column(name: str, array: NDArray[Any], kind: DeclaredType) -> ResponseOutput:
    array = cast(array, kind) if kind is not None else array
    if (array.dtype.kind, array.dtype.itemsize) not in TENSOR_DATATYPES:
        array = _to_doubles(array)
    datatype = TENSOR_DATATYPES[array.dtype.kind, array.dtype.itemsize]
    return build_output(name, datatype, [len(array), 1], TensorData.from_array(array), None)


def _encode_nullable_column(
    name: str, column: pd.Series[Any], kind: DeclaredType
) -> ResponseOutput | None:
    """Encode a nullable numeric column: missing floats as NaN, other missing numbers as JSON null.

    Returns None for numbers without a NumPy dtype, such as decimals.
    """
    plain_dtype = getattr(column.dtype, "numpy_dtype", None) or np.dtype(column.dtype.type)
    if (plain_dtype.kind, plain_dtype.itemsize) not in TENSOR_DATATYPES:
        return None
    if not column.isna().any():
        return _encode_number_column(name, column.to_numpy(dtype=plain_dtype), kind)
    if plain_dtype.kind == "f":
        return _encode_number_column(
            name, column.to_numpy(dtype=plain_dtype, na_value=np.nan), kind
        )
    values = [None if is_missing(item) else to_plain(item) for item in column.tolist()]
    return _encode_objects(name, values, [len(values), 1], kind, None)


def encode_list(name: str, items: list[Any], kind: DeclaredType = None) -> ResponseOutput:
    """Encode a list: text, numbers and equal arrays as tensors, other elements as JSON."""
    if items and all(type(item) is np.ndarray and item.dtype.kind in "biuf" for item in items):
        layouts = {(item.shape, item.dtype) for item in items}
        if len(layouts) == 1:
            return encode_array(name, np.stack(items), kind)
    return _encode_objects(name, items, [len(items), 1], kind)


def encode_scalar(name: str, value: Any, kind: DeclaredType = None) -> ResponseOutput:
    """Encode one value; None as JSON null."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return encode_array(name, np.array(value))
    item = value if isinstance(value, _SCALAR_TYPES) else to_plain(value)
    return _encode_objects(name, [item], [1], kind)


def encode_value(name: str, value: Any, kind: DeclaredType = None) -> ResponseOutput:
    """Encode a value of any type. Raises `NotEncodableError` if V2 has no form for it."""
    if isinstance(value, np.ndarray):
        return encode_array(name, value, kind)
    if isinstance(value, list | tuple):
        return encode_list(name, list(value), kind)
    if isinstance(value, pd.Series):
        return encode_column(name, value, kind)
    if value is None or isinstance(value, dict | pydantic.BaseModel | pd.DataFrame):
        return build_output(name, "BYTES", [1], _to_text_data([to_json(to_plain(value))]), PD_JSON)
    return encode_scalar(name, value, kind)


def _encode_objects(
    name: str,
    items: list[Any],
    shape: Sequence[int],
    kind: DeclaredType = None,
    numbers: str | None = NP,
) -> ResponseOutput:
    """Encode Python objects by their declared type, else by their common type, else as JSON.

    Args:
        numbers: The content type of numbers.
    """
    if isinstance(kind, str):  # JSON
        return build_output(
            name, "BYTES", shape, _to_text_data(to_json(to_plain(item)) for item in items), PD_JSON
        )
    for kinds, content_type, write, data_type, missing in _WRITERS:
        is_declared = isinstance(kind, DataType) and kind == data_type
        present = [item for item in items if item is not None] if is_declared else items
        if all(isinstance(item, kinds) for item in present):
            texts = [missing if item is None else _to_bytes(write(item)) for item in items]
            return build_output(name, "BYTES", shape, TensorData(texts), content_type)
    array = _declared_floats(items, kind)
    if array is None:
        array = exact_array(items)
    if array is not None:
        array = cast(array, kind).reshape(shape)
        datatype = TENSOR_DATATYPES[array.dtype.kind, array.dtype.itemsize]
        return build_output(name, datatype, shape, TensorData.from_array(array), numbers)
    return build_output(
        name, "BYTES", shape, _to_text_data(to_json(to_plain(item)) for item in items), PD_JSON
    )


def _declared_floats(items: list[Any], kind: DeclaredType) -> NDArray[Any] | None:
    """Return numbers of a declared float output with NaN for None; None for other values."""
    dtype = get_number_dtype(kind)
    present = [item for item in items if item is not None]
    if dtype is None or dtype.kind != "f" or len(present) == len(items):
        return None
    array = exact_array(present) if present else np.empty(0, dtype=dtype)
    if array is None or array.dtype.kind == "b":
        return None
    floats = cast(array, kind)
    if floats.dtype.kind != "f":
        return None
    filled = np.full(len(items), np.nan, dtype=floats.dtype)
    filled[[item is not None for item in items]] = floats
    return filled


def _to_number_array(items: list[Any]) -> NDArray[Any] | None:
    """Return NumPy's array of numbers, with integers as integers; None if no dtype holds them."""
    try:
        if all(type(item) is int for item in items):
            return np.array(items, dtype="u8" if max(items) >= 2**63 else "i8")
        return np.array(items)
    except OverflowError:
        return None


def exact_array(items: list[Any]) -> NDArray[Any] | None:
    """Return an array with the same values as the items; None if there is none.

    Booleans and numbers do not mix: NumPy would convert them.
    """
    if not items or not all(isinstance(item, _NUMBER_TYPES) for item in items):
        return None
    boolean_count = sum(isinstance(item, bool | np.bool_) for item in items)
    if boolean_count not in (0, len(items)):
        return None
    array = _to_number_array(items)
    if array is None or array.ndim != 1:
        return None
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype("f8")  # long doubles; compared with the items below
    if (array.dtype.kind, array.dtype.itemsize) not in TENSOR_DATATYPES:
        return None
    if array.dtype.kind == "f" and not any(isinstance(item, float | np.floating) for item in items):
        return None
    is_exact = all(
        converted == item or (converted != converted and item != item)
        for converted, item in zip(array.tolist(), items, strict=True)
    )
    return array if is_exact else None


_NUMBER_TYPES = (bool, int, float, np.number, np.bool_)
_SCALAR_TYPES = (
    bool,
    int,
    float,
    str,
    bytes,
    bytearray,
    np.generic,
    dt.date,
    dt.time,
    dt.timedelta,
)
# Python types, content type, text of a value, declared type, and text of a missing value.
_WRITERS: tuple[
    tuple[Any, str, Callable[[Any], str | bytes], DataType | None, bytes | None], ...
] = (
    (str, STR, lambda item: item, DataType.string, None),
    ((bytes, bytearray), BASE64, base64.b64encode, DataType.binary, None),
    ((dt.date, pd.Timestamp), DATETIME, format_datetime, DataType.datetime, b"NaT"),
    ((dt.timedelta, pd.Timedelta), STR, format_duration, None, None),
)


def _to_text_data(items: Iterable[str]) -> TensorData:
    return TensorData([item.encode("utf-8") for item in items])


def _to_bytes(item: str | bytes) -> bytes:
    return item.encode("utf-8") if isinstance(item, str) else item
