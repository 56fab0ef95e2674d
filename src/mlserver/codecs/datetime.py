"""Codec `datetime`: lists of datetimes as ISO 8601 text."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from ..tensor import brief
from ..types import RequestInput, ResponseOutput
from .base import InputCodec
from .errors import CodecError
from .lists import bytes_output, elements, is_list_of
from .string import decode_str

MISSING = "NaT"
"""Text of a missing datetime, as in NumPy and pandas: binary formats have no null in BYTES."""


def _encode(element: Any, use_bytes: bool) -> str | bytes:
    if isinstance(element, datetime):
        text = element.isoformat()
    else:
        text = MISSING if element is None else element
    return text.encode("ascii") if use_bytes and isinstance(text, str) else text


def _decode(element: Any, name: str) -> datetime | None:
    text = decode_str(element)
    if text is None or text == MISSING:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise CodecError(
            f"tensor '{name}' of content type datetime: expected ISO 8601, received {brief(text)}"
        ) from None


class DatetimeCodec(InputCodec):
    """A list of datetimes or ISO 8601 texts <-> a BYTES tensor of shape [N, 1].

    Fractions finer than Python's microseconds are truncated. Missing values are None.
    """

    ContentType = "datetime"
    TypeHint: ClassVar[Any] = list[str | datetime]
    OtherHints: ClassVar[tuple[Any, ...]] = (list[datetime],)

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return is_list_of(payload, (str, datetime))

    @classmethod
    def encode_output(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> ResponseOutput:
        data = [_encode(element, use_bytes) for element in payload]
        return bytes_output(name, data, cls.ContentType)

    @classmethod
    def encode_input(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> RequestInput:
        return super().encode_input(name, payload, use_bytes=use_bytes, **kwargs)

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> list[datetime | None]:
        return [_decode(element, request_input.name) for element in elements(request_input)]
