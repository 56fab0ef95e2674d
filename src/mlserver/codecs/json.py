"""Codec `pd_json`: one JSON text per element of a BYTES tensor.

Writes Python objects of plain, NumPy and datetime values. Reads with the standard library, which
keeps integers of any size exact.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import orjson

from ..tensor import brief
from ..types import RequestInput, ResponseOutput
from .base import InputCodec
from .errors import CodecError, type_name
from .lists import as_list, bytes_output, elements
from .utils import InputOrOutput

PandasJsonContentType = "pd_json"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def _to_json_value(value: Any) -> Any:
    """Return a value that JSON has no type for as one that it has; for both encoders."""
    if hasattr(value, "tolist"):  # arrays that orjson rejects, NumPy scalars, Series
        return value.tolist()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8")
    if isinstance(value, (set, frozenset)):
        return list(value)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type_name(type(value))} is not JSON serializable")


class JSONEncoderWithArray(json.JSONEncoder):
    """The standard encoder, extended by arrays, NumPy scalars, bytes (as text) and datetimes."""

    def default(self, obj: Any) -> Any:
        return _to_json_value(obj)


def encode_to_json_bytes(value: Any) -> bytes:
    """Return compact JSON as UTF-8; NaN and infinity become null.

    Raises:
        CodecError: JSON has no form for a value; the text names its type.
    """
    try:
        return orjson.dumps(value, default=_to_json_value, option=_OPTIONS)
    except (TypeError, ValueError):
        pass  # integers over 64 bits; values without a form in JSON raise again below
    try:
        return json.dumps(
            value, cls=JSONEncoderWithArray, separators=(",", ":"), allow_nan=False
        ).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"no JSON for a value of type {type_name(type(value))}: {error}") from None


def encode_to_json(value: Any, use_bytes: bool = True) -> bytes | str:
    """Return compact JSON as UTF-8, or as text if `use_bytes` is False."""
    encoded = encode_to_json_bytes(value)
    return encoded if use_bytes else encoded.decode("utf-8")


def decode_from_bytelike_json_to_dict(value: Any) -> Any:
    """Return the object of a JSON text; a value that is not text is returned unchanged.

    Raises:
        CodecError: the text is not JSON.
    """
    if not isinstance(value, (str, bytes, bytearray)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise CodecError(f"expected JSON text, received {brief(value)}") from None


def decode_json_input_or_output(input_or_output: InputOrOutput) -> list[Any]:
    """Return the objects of a tensor of JSON texts, one per element."""
    return [decode_from_bytelike_json_to_dict(element) for element in as_list(input_or_output.data)]


class JsonColumnCodec(InputCodec):
    """A list of objects <-> a BYTES tensor of JSON texts of shape [N, 1].

    It is selected by content type only, never by payload.
    """

    ContentType = PandasJsonContentType
    TypeHint: ClassVar[Any] = None

    @classmethod
    def encode_output(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> ResponseOutput:
        data = [encode_to_json(element, use_bytes) for element in payload]
        return bytes_output(name, data, cls.ContentType)

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> list[Any]:
        try:
            return list(map(decode_from_bytelike_json_to_dict, elements(request_input)))
        except CodecError as error:
            raise CodecError(
                f"tensor '{request_input.name}' of content type pd_json: {error.reason}"
            ) from None
