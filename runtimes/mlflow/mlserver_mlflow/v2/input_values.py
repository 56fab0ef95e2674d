"""One V2 input -> the values of a column or the array of a tensor, by the content type that applies to it."""

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

from ..metadata import SCALARS
from . import type_enforcement
from .type_enforcement import AppliedContentType

FROM_INPUT = "the input's parameters"


def content_type_of(parameters: Parameters | None) -> str | None:
    return parameters.content_type if parameters is not None else None


def check_rows(columns: dict[str, Any]) -> None:
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
    """The values of one column, one per row."""
    shape = tensor.shape
    is_bytes = str(tensor.datatype) == "BYTES"
    nested = (
        isinstance(spec, ColSpec)
        and isinstance(spec.type, Array)
        and (not is_bytes or _has_lists(tensor, applied))
    )
    if not nested and (len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1)):
        raise InvalidInput(
            f"input '{tensor.name}'", "shape [n] or [n, 1] for a column", f"{shape} ({applied})"
        )
    if is_bytes and nested:
        values: Any = _read_lists(tensor, spec, applied)
    elif is_bytes:
        values = read_values(tensor, applied)
    else:
        array = _numbers(tensor, applied)
        values = array.tolist() if nested else array.reshape(-1)
    if isinstance(spec, ColSpec):
        return type_enforcement.column(tensor.name, values, spec, str(tensor.datatype), applied)
    return values


def _has_lists(tensor: RequestInput, applied: AppliedContentType) -> bool:
    """Whether the texts of an array column are the elements of its rows' lists, rather than one JSON text per row."""
    shape = tensor.shape
    is_json = applied.content_type == "pd_json"
    return len(shape) > 1 and (shape[1:] != [1] or not is_json)


def _read_lists(tensor: RequestInput, spec: Any, applied: AppliedContentType) -> list[Any]:
    """Rows of lists from a BYTES tensor [n, k, ...]: its elements are of the type that the signature's arrays hold."""
    kind = spec.type
    while isinstance(kind, Array):
        kind = kind.dtype
    if applied.reason != FROM_INPUT:
        applied = AppliedContentType(
            SCALARS[kind][1] if isinstance(kind, DataType) else "pd_json", applied.reason
        )
    values = _objects(as_list(read_values(tensor, applied)))
    return list(values.reshape(tensor.shape).tolist())


def read_array(
    tensor: RequestInput, spec: ColSpec | TensorSpec | None, applied: AppliedContentType
) -> NDArray[Any]:
    """The array of one tensor, in the signature's dtype if there is one."""
    dtype = spec.type if isinstance(spec, TensorSpec) else None
    if str(tensor.datatype) != "BYTES":
        array = _numbers(tensor, applied)
        if dtype is None or dtype.kind == "O":
            return array
        try:
            return type_enforcement.as_dtype(array, dtype)
        except type_enforcement.NotExactError:
            raise type_enforcement.refusal(
                tensor.name, f"a tensor of {dtype}", str(tensor.datatype), applied
            ) from None
    values = read_values(tensor, applied)
    try:
        return _text_array(values, dtype).reshape(tensor.shape)
    except (ValueError, TypeError):
        raise type_enforcement.refusal(
            tensor.name, f"a tensor of {dtype}", "BYTES", applied
        ) from None


def as_list(values: Any) -> list[Any]:
    """A column's values as Python objects, as a type-hinted model takes them."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind != "M":
            return list(values.tolist())
        found: list[Any] = pd.Series(values).tolist()
        return [None if item is pd.NaT else item.to_pydatetime() for item in found]
    return list(values)


def _text_array(values: Any, dtype: np.dtype[Any] | None) -> NDArray[Any]:
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
        return _objects(values)
    if _has_no_unit(dtype):
        return as_datetimes(values)
    if dtype.kind in "US" and None in values:
        raise ValueError
    return _objects(values) if dtype.kind == "O" else np.array(values, dtype=dtype)


def _has_no_unit(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is `datetime64` without a unit, which NumPy deprecates from 2.5 on: such data keep theirs."""
    return dtype.kind == "M" and np.datetime_data(dtype)[0] == "generic"


def _objects(values: Any) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _numbers(tensor: RequestInput, applied: AppliedContentType) -> NDArray[Any]:
    codec = _custom_codec(applied)
    if codec is not None:
        return np.asarray(_decoded_by(codec, tensor))
    if applied.reason == FROM_INPUT and applied.content_type in READERS:
        expected = f"BYTES for content type '{applied.content_type}'"
        raise InvalidInput(f"input '{tensor.name}'", expected, f"{tensor.datatype} ({applied})")
    return _checked(tensor)


def _checked(tensor: RequestInput) -> NDArray[Any]:
    """The elements as an array. Requests off the wire were checked before; those made in code may not fit."""
    try:
        return tensor.data.to_array(str(tensor.datatype), tensor.shape)
    except ValueError as error:
        expected = f"{tensor.datatype} elements for shape {list(tensor.shape)}"
        raise InvalidInput(
            f"input '{tensor.name}'", expected, f"data that does not fit: {error}"
        ) from None


def read_values(tensor: RequestInput, applied: AppliedContentType) -> Any:
    """The elements of a BYTES tensor as Python values, in one flat list."""
    codec = _custom_codec(applied)
    if codec is not None:
        return _decoded_by(codec, tensor)
    found: list[Any] = list(_checked(tensor).flat)
    read: Callable[[list[Any]], Any] = READERS.get(
        applied.content_type or "", _text if applied.content_type else _as_sent
    )
    try:
        return read(found)
    except MLServerError:
        raise
    except (ValueError, TypeError) as error:
        expected = EXPECTED[applied.content_type or ""]
        raise InvalidInput(f"input '{tensor.name}'", expected, f"{error} ({applied})") from None


def _custom_codec(applied: AppliedContentType) -> InputCodecLike | None:
    """A codec that somebody registered beside the built-in ones."""
    if (
        applied.content_type is None
        or applied.content_type in READERS
        or applied.content_type in ("np", "pd")
    ):
        return None
    return find_input_codec(applied.content_type)


def _decoded_by(codec: Any, tensor: RequestInput) -> Any:
    return codec.decode_input(tensor)


def _as_sent(elements: list[Any]) -> list[Any]:
    """Elements by the form in which they came: JSON text is `str`, raw bytes are `bytes`."""
    return [
        bytes(element) if isinstance(element, bytearray | memoryview) else element
        for element in elements
    ]


def _text(elements: list[Any]) -> list[Any]:
    """Text if all raw bytes are UTF-8, else bytes; JSON values that are no text stay as they came.

    Raises:
        NotTogether: joined requests of which some hold text and others hold bytes.
    """
    try:
        return [_decoded(element) for element in elements]
    except UnicodeDecodeError:
        if len(joined_rows()) > 1:
            raise CannotBatch from None
        return _as_sent(elements)


def _decoded(element: Any) -> Any:
    return (
        bytes(element).decode("utf-8")
        if isinstance(element, bytes | bytearray | memoryview)
        else element
    )


def _strings(elements: list[Any]) -> list[str | None]:
    texts: list[str | None] = []
    for element in elements:
        try:
            text = _decoded(element)
        except UnicodeDecodeError:
            text = bytes(element)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{type(text).__name__} {str(text)[:40]!r}")
        texts.append(text)
    return texts


def _binaries(elements: list[Any]) -> list[bytes | None]:
    return [None if element is None else _binary(element) for element in elements]


def _binary(element: Any) -> bytes:
    if not isinstance(element, str | bytes | bytearray | memoryview):
        raise TypeError(f"{type(element).__name__} {str(element)[:40]!r}")
    data = element.encode("utf-8") if isinstance(element, str) else bytes(element)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data  # sent as it is, without base64: over gRPC and in the binary encoding that is the natural way


def _datetimes(elements: list[Any]) -> Any:
    """Naive datetimes in UTC, as MLflow's own protocol makes them of offsets."""
    texts = [None if text == "NaT" else text for text in _strings(elements)]
    try:
        found = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True)
    except ValueError:
        wrong = next((text for text in texts if text is not None and not _is_iso(text)), None)
        raise ValueError(repr(wrong)[:80]) from None
    return found.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()


def _is_iso(text: str) -> bool:
    try:
        pd.to_datetime(text, format="ISO8601", utc=True)
    except ValueError:
        return False
    return True


def _json_values(elements: list[Any]) -> list[Any]:
    return [
        json.loads(element) if isinstance(element, str | bytes | bytearray) else element
        for element in elements
    ]


READERS: dict[str, Callable[[list[Any]], Any]] = {
    "str": _strings,
    "base64": _binaries,
    "datetime": _datetimes,
    "pd_json": _json_values,
}
EXPECTED = {
    "": "BYTES",
    "np": "BYTES",
    "str": "text",
    "base64": "base64 text or bytes",
    "datetime": "ISO 8601 text",
    "pd_json": "JSON text",
}
