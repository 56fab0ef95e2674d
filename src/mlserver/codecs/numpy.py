"""Codecs `np`: NumPy arrays. Numbers are never converted to Python lists.

Imported on first use of the codec; `mlserver.codecs` itself does not import NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tensor import DTYPES, TensorError, brief
from ..types import Datatype, Parameters, RequestInput, ResponseOutput, TensorData
from .base import InputCodec
from .errors import CodecError, type_name
from .lists import elements
from .utils import InputOrOutput, SingleInputRequestCodec, inject_batch_dimension

_DATATYPES: dict[np.dtype[Any], Datatype] = {
    np.dtype(code): Datatype(name) for name, code in DTYPES.items()
}
_TEXT_KINDS = "OSUT"  # object, bytes, text of fixed width, text of variable width
_DATETIME_UNITS = (
    "Y",
    "M",
    "W",
    "D",
    "h",
    "m",
    "s",
    "ms",
    "us",
    "ns",
    "ps",
    "fs",
    "as",
)  # coarsest first


def to_datatype(dtype: np.dtype[Any]) -> Datatype:
    """Return the datatype of a dtype's elements.

    Raises:
        CodecError: there is none; the text names the dtype.
    """
    datatype = _DATATYPES.get(dtype) or _DATATYPES.get(dtype.newbyteorder("<"))
    if datatype is not None:
        return datatype
    if dtype.kind in _TEXT_KINDS or dtype.kind == "M":
        return Datatype.BYTES
    raise CodecError(
        f"no tensor can hold NumPy's {dtype.name}; "
        f"its datatypes are {', '.join(map(str, _DATATYPES))} and text"
    )


def to_dtype(input_or_output: InputOrOutput) -> np.dtype[Any]:
    """Return the dtype of a tensor's array: object for BYTES, float32 for BF16."""
    datatype = str(input_or_output.datatype)
    return np.dtype(object if datatype == "BYTES" else DTYPES.get(datatype, "<f4"))


def convert_nan(value: Any) -> Any:
    """Return None for NaN, other values unchanged."""
    return None if isinstance(value, float | np.floating) and math.isnan(value) else value


# -- array -> data --


def _encode_data(data: NDArray[Any], datatype: str) -> list[Any]:
    """Return the elements as a flat list for JSON: None for NaN, text as UTF-8 bytes."""
    if datatype == Datatype.BYTES.value:
        return _encode_text(data, use_bytes=True)
    return list(TensorData.from_array(data).root)


def _encode_text(array: NDArray[Any], use_bytes: bool) -> list[Any]:
    if array.dtype.kind == "O":
        return [_encode_object(element) for element in array.ravel().tolist()]
    if array.dtype.kind == "M":
        array = np.datetime_as_string(array)
    values = array.ravel().tolist()
    if array.dtype.kind != "S":
        return [text.encode("utf-8") for text in values] if use_bytes else values
    return values if use_bytes else [blob.decode("utf-8") for blob in values]


def _encode_object(element: Any) -> Any:
    """Return an element of an object array.

    Raises:
        CodecError: no format can represent its type.
    """
    if isinstance(element, np.generic):
        element = element.item()
    if element is None or isinstance(element, (str, bytes, bool, int, float)):
        return convert_nan(element)
    if type(element).__name__ in ("NAType", "NaTType"):
        return None
    raise CodecError(
        f"no tensor can hold an object array with elements of type {type_name(type(element))}"
    )


def _unmasked(array: NDArray[Any]) -> NDArray[Any]:
    """Return a masked array's values, NaN or None where masked; other arrays unchanged."""
    if not isinstance(array, np.ma.MaskedArray):
        return np.asarray(array)
    if array.dtype.kind not in "fO" and np.ma.is_masked(array):
        raise CodecError(
            f"no tensor can hold masked elements of {array.dtype.name}; use a float array"
        )
    return np.asarray(array.filled(np.nan if array.dtype.kind == "f" else None))


# -- data -> array --


def _to_ndarray(input_or_output: InputOrOutput) -> NDArray[Any]:
    """Return a writable array of a tensor.

    BYTES are datetimes if the content type is `datetime`, text if every element is text, else
    objects.
    """
    datatype, shape = str(input_or_output.datatype), input_or_output.shape
    try:
        if datatype == Datatype.BYTES.value:
            return _decode_text(input_or_output)
        array = input_or_output.data.to_array(datatype, shape)
    except TensorError as error:
        raise CodecError(f"tensor '{input_or_output.name}': {error}") from None
    dtype = np.dtype(DTYPES.get(datatype, "<f4"))
    # Views of received bytes are read-only, but models write to their inputs.
    return array if array.dtype == dtype and array.flags.writeable else array.astype(dtype)


def _decode_text(tensor: InputOrOutput) -> NDArray[Any]:
    if tensor.parameters is not None and tensor.parameters.content_type == "datetime":
        return _decode_datetimes(tensor)
    array = tensor.data.to_array("BYTES", tensor.shape)
    if array.dtype.kind != "O":
        return array
    values = array.ravel().tolist()
    # NumPy's fixed-width text loses trailing NULs: keep such elements as objects.
    if all(isinstance(element, str) and not element.endswith("\0") for element in values):
        return np.array(values, dtype=np.str_).reshape(array.shape)
    return array.copy()


def as_datetimes(texts: Iterable[Any]) -> NDArray[Any]:
    """Return ISO 8601 texts as an array in the finest unit of any text; days if all are missing.

    The unit is explicit because NumPy 2.5 deprecates dtypes without one.

    Raises:
        ValueError: a text is not ISO 8601, or has a zone.
    """
    values = ["NaT" if text is None else text for text in texts]
    units = {
        np.datetime_data(np.datetime64(text))[0]
        for text in values
        if str(text).lower() not in ("", "nat")
    }
    unit = max(units, key=_DATETIME_UNITS.index, default="D")
    return np.array(values, dtype=f"datetime64[{unit}]")


def _decode_datetimes(tensor: InputOrOutput) -> NDArray[Any]:
    texts = [
        element.decode("utf-8") if isinstance(element, bytes) else element
        for element in elements(tensor)
    ]
    try:
        return as_datetimes(texts).reshape(tensor.shape)
    except (ValueError, TypeError):
        raise CodecError(
            f"tensor '{tensor.name}' of content type datetime: "
            f"expected ISO 8601 text without a zone, received {brief(texts)}"
        ) from None


class NumpyCodec(InputCodec):
    """An ndarray <-> one tensor.

    A shape of [N] is sent as [N, 1], [] as [1]; datetime64 as ISO 8601 of content type `datetime`.
    """

    ContentType = "np"
    TypeHint = np.ndarray

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return isinstance(payload, np.ndarray)

    @classmethod
    def encode_output(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> ResponseOutput:
        array = _unmasked(payload)
        datatype = to_datatype(array.dtype)
        if datatype is Datatype.BYTES:
            data = TensorData(_encode_text(array, use_bytes))
        else:
            data = TensorData.from_array(array)
        content_type = "datetime" if array.dtype.kind == "M" else cls.ContentType
        return ResponseOutput(
            name=name,
            datatype=datatype,
            shape=inject_batch_dimension(list(array.shape)),
            data=data,
            parameters=Parameters(content_type=content_type),
        )

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> NDArray[Any]:
        return _to_ndarray(request_input)


class NumpyRequestCodec(SingleInputRequestCodec):
    """An ndarray <-> a request of one tensor."""

    ContentType = NumpyCodec.ContentType
    TypeHint = NumpyCodec.TypeHint
    InputCodec = NumpyCodec
