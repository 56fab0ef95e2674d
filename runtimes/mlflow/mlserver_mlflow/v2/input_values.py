"""Values of a column, or the array of a tensor, from one V2 input and its content type."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType
from mlflow.types.schema import Array, ColSpec, TensorSpec
from numpy.typing import NDArray

from mlserver.codecs.base import InputCodecLike, find_input_codec
from mlserver.codecs.numpy import as_datetimes
from mlserver.context import joined_rows
from mlserver.errors import CannotBatch, InvalidInput, MLServerError
from mlserver.types import Parameters, RequestInput

from ..metadata import SCALAR_TYPES
from . import type_enforcement
from .type_enforcement import AppliedContentType

FROM_INPUT = "the input's parameters"


def get_content_type(parameters: Parameters | None) -> str | None:
    """Return the content type in parameters, or None."""
    return parameters.content_type if parameters is not None else None


def check_rows(columns: dict[str, Any]) -> None:
    """Raise `InvalidInput` if columns have different numbers of rows."""
    rows = {name: len(values) for name, values in columns.items()}
    if len(set(rows.values())) > 1:
        name, count = next(iter(rows.items()))
        other = next(key for key, size in rows.items() if size != count)
        raise InvalidInput(
            f"input '{other}'", f"{count} rows as in input '{name}'", str(rows[other])
        )


def read_column(
    tensor: RequestInput, spec: ColSpec | TensorSpec | None, applied: AppliedContentType
) -> Any:
    """Return the values of one column, one per row."""
    shape = tensor.shape
    is_bytes = str(tensor.datatype) == "BYTES"
    is_array_column = isinstance(spec, ColSpec) and isinstance(spec.type, Array)
    nested = is_array_column and (not is_bytes or _has_lists(tensor, applied))
    is_column = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if not nested and not is_column:
        raise InvalidInput(
            f"input '{tensor.name}'", "shape [n] or [n, 1] for a column", f"{shape} ({applied})"
        )
    if is_bytes and nested:
        values: Any = _read_lists(tensor, spec, applied)
    elif is_bytes:
        values = read_values(tensor, applied)
    else:
        array = _read_numbers(tensor, applied)
        values = array.tolist() if nested else array.reshape(-1)
    if isinstance(spec, ColSpec):
        return type_enforcement.convert_column(
            tensor.name, values, spec, str(tensor.datatype), applied
        )
    return values


def _has_lists(tensor: RequestInput, applied: AppliedContentType) -> bool:
    """Whether the elements of an array column are items of lists, not one JSON text per row."""
    shape = tensor.shape
    is_json = applied.content_type == "pd_json"
    return len(shape) > 1 and (shape[1:] != [1] or not is_json)


def _read_lists(tensor: RequestInput, spec: Any, applied: AppliedContentType) -> list[Any]:
    """Return rows of lists from a BYTES tensor [n, k, ...] with items of the signature's type."""
    kind = spec.type
    while isinstance(kind, Array):
        kind = kind.dtype
    if applied.reason != FROM_INPUT:
        content_type = SCALAR_TYPES[kind][1] if isinstance(kind, DataType) else "pd_json"
        applied = AppliedContentType(content_type, applied.reason)
    values = _to_object_array(as_list(read_values(tensor, applied)))
    return list(values.reshape(tensor.shape).tolist())


def read_array(
    tensor: RequestInput, spec: ColSpec | TensorSpec | None, applied: AppliedContentType
) -> NDArray[Any]:
    """Return the array of one tensor, in the signature's dtype if it has one."""
    dtype = spec.type if isinstance(spec, TensorSpec) else None
    if str(tensor.datatype) != "BYTES":
        array = _read_numbers(tensor, applied)
        if dtype is None or dtype.kind == "O":
            return array
        try:
            return type_enforcement.as_dtype(array, dtype)
        except type_enforcement.NotExactError:
            raise type_enforcement.build_type_error(
                tensor.name, f"a tensor of {dtype}", str(tensor.datatype), applied
            ) from None
    values = read_values(tensor, applied)
    try:
        return _make_text_array(values, dtype).reshape(tensor.shape)
    except (ValueError, TypeError):
        raise type_enforcement.build_type_error(
            tensor.name, f"a tensor of {dtype}", "BYTES", applied
        ) from None


def as_list(values: Any) -> list[Any]:
    """Return a column's values as Python objects, for type-hinted models."""
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.dtype.kind != "M":
        return list(values.tolist())
    timestamps: list[Any] = pd.Series(values).tolist()
    return [None if item is pd.NaT else item.to_pydatetime() for item in timestamps]


def _make_text_array(values: Any, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values if dtype is None or _has_no_unit(dtype) else values.astype(dtype)
    if dtype is not None and dtype.kind in "biuf":
        raise ValueError
    if dtype is None:
        are_texts = [isinstance(value, str) for value in values]
        if all(are_texts):
            return np.array(values)
        if any(are_texts) and len(joined_rows()) > 1:
            raise CannotBatch
        return _to_object_array(values)
    if _has_no_unit(dtype):
        return as_datetimes(values)
    if dtype.kind in "US" and None in values:
        raise ValueError
    return _to_object_array(values) if dtype.kind == "O" else np.array(values, dtype=dtype)


def _has_no_unit(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is `datetime64` without a unit (deprecated by NumPy 2.5)."""
    return dtype.kind == "M" and np.datetime_data(dtype)[0] == "generic"


def _to_object_array(values: Any) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _read_numbers(tensor: RequestInput, applied: AppliedContentType) -> NDArray[Any]:
    codec = _find_custom_codec(applied)
    if codec is not None:
        return np.asarray(codec.decode_input(tensor))
    if applied.reason == FROM_INPUT and applied.content_type in DECODERS:
        expected = f"BYTES for content type '{applied.content_type}'"
        raise InvalidInput(f"input '{tensor.name}'", expected, f"{tensor.datatype} ({applied})")
    return _to_array(tensor)


def _to_array(tensor: RequestInput) -> NDArray[Any]:
    """Return the elements as an array.

    Raises:
        InvalidInput: the elements do not fit the shape. Requests from a front end were checked
            before, those made in code were not.
    """
    try:
        return tensor.data.to_array(str(tensor.datatype), tensor.shape)
    except ValueError as error:
        expected = f"{tensor.datatype} elements for shape {list(tensor.shape)}"
        raise InvalidInput(
            f"input '{tensor.name}'", expected, f"data that does not fit: {error}"
        ) from None


def read_values(tensor: RequestInput, applied: AppliedContentType) -> Any:
    """Return the elements of a BYTES tensor as a flat list of Python values."""
    codec = _find_custom_codec(applied)
    if codec is not None:
        return codec.decode_input(tensor)
    elements: list[Any] = list(_to_array(tensor).flat)
    default = _decode_texts if applied.content_type else _keep_types
    decode: Callable[[list[Any]], Any] = DECODERS.get(applied.content_type or "", default)
    try:
        return decode(elements)
    except MLServerError:
        raise
    except (ValueError, TypeError) as error:
        expected = EXPECTED[applied.content_type or ""]
        raise InvalidInput(f"input '{tensor.name}'", expected, f"{error} ({applied})") from None


def _find_custom_codec(applied: AppliedContentType) -> InputCodecLike | None:
    """Return a registered codec of a content type that is not built in, or None."""
    content_type = applied.content_type
    if content_type is None or content_type in DECODERS or content_type in ("np", "pd"):
        return None
    return find_input_codec(content_type)


def _keep_types(elements: list[Any]) -> list[Any]:
    """Return elements in their own types: JSON text is `str`, raw bytes are `bytes`."""
    return [
        bytes(element) if isinstance(element, bytearray | memoryview) else element
        for element in elements
    ]


def _decode_texts(elements: list[Any]) -> list[Any]:
    """Return text if all raw bytes are UTF-8, else bytes; other JSON values unchanged.

    Raises:
        CannotBatch: some of the joined requests hold text and others bytes.
    """
    try:
        return [_decode_text(element) for element in elements]
    except UnicodeDecodeError:
        if len(joined_rows()) > 1:
            raise CannotBatch from None
        return _keep_types(elements)


def _decode_text(element: Any) -> Any:
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element).decode("utf-8")
    return element


def _decode_strings(elements: list[Any]) -> list[str | None]:
    texts: list[str | None] = []
    for element in elements:
        try:
            text = _decode_text(element)
        except UnicodeDecodeError:
            text = bytes(element)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{type(text).__name__} {str(text)[:40]!r}")
        texts.append(text)
    return texts


def _decode_base64(elements: list[Any]) -> list[bytes | None]:
    return [None if element is None else _decode_base64_element(element) for element in elements]


def _decode_base64_element(element: Any) -> bytes:
    if not isinstance(element, str | bytes | bytearray | memoryview):
        raise TypeError(f"{type(element).__name__} {str(element)[:40]!r}")
    data = element.encode("utf-8") if isinstance(element, str) else bytes(element)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data  # raw bytes without base64, as over gRPC and in the binary encoding


def _decode_datetimes(elements: list[Any]) -> Any:
    """Return naive datetimes in UTC, as MLflow's own protocol converts offsets."""
    texts = [None if text == "NaT" else text for text in _decode_strings(elements)]
    try:
        datetimes = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True)
    except ValueError:
        present = [text for text in texts if text is not None]
        invalid = next((text for text in present if not _is_iso_datetime(text)), None)
        raise ValueError(repr(invalid)[:80]) from None
    return datetimes.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()


def _is_iso_datetime(text: str) -> bool:
    try:
        pd.to_datetime(text, format="ISO8601", utc=True)
    except ValueError:
        return False
    return True


def _decode_json(elements: list[Any]) -> list[Any]:
    return [
        json.loads(element) if isinstance(element, str | bytes | bytearray) else element
        for element in elements
    ]


DECODERS: dict[str, Callable[[list[Any]], Any]] = {
    "str": _decode_strings,
    "base64": _decode_base64,
    "datetime": _decode_datetimes,
    "pd_json": _decode_json,
}
EXPECTED = {
    "": "BYTES",
    "np": "BYTES",
    "str": "text",
    "base64": "base64 text or bytes",
    "datetime": "ISO 8601 text",
    "pd_json": "JSON text",
}
