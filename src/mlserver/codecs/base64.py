"""Codec `base64`: lists of bytes as Base64 text."""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar

from ..tensor import brief
from ..types import RequestInput, ResponseOutput
from .base import InputCodec
from .errors import CodecError
from .lists import bytes_output, elements, is_list_of


def _encode(element: bytes | str | None, use_bytes: bool) -> bytes | str | None:
    if element is None:
        return None
    encoded = base64.b64encode(element.encode("ascii") if isinstance(element, str) else element)
    return encoded if use_bytes else encoded.decode("ascii")


def _decode(element: Any, name: str) -> bytes | None:
    """Return the bytes of an element.

    Text must be Base64. Bytes that are not Base64 are returned unchanged: a binary format has sent
    them without encoding.
    """
    if element is None:
        return None
    if not isinstance(element, (str, bytes)):
        raise CodecError(
            f"tensor '{name}' of content type base64: expected text or bytes, "
            f"received {brief(element)} of type {type(element).__name__}"
        )
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        if isinstance(element, bytes):
            return element
        raise CodecError(
            f"tensor '{name}' of content type base64: expected Base64 text, "
            f"received {brief(element)}"
        ) from None


class Base64Codec(InputCodec):
    """A list of bytes <-> a BYTES tensor of Base64 text of shape [N, 1]."""

    ContentType = "base64"
    TypeHint: ClassVar[Any] = list[bytes]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return is_list_of(payload, bytes)

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
    def decode_input(cls, request_input: RequestInput) -> list[bytes | None]:
        return [_decode(element, request_input.name) for element in elements(request_input)]
