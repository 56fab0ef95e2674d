"""Codecs `str`: lists of text as UTF-8."""

from __future__ import annotations

from typing import Any, ClassVar

from ..tensor import brief
from ..types import RequestInput, ResponseOutput
from .base import InputCodec
from .errors import CodecError
from .lists import bytes_output, elements, is_list_of
from .utils import SingleInputRequestCodec


def encode_str(elem: str, str_codec: str = "utf-8") -> bytes:
    """Return text as bytes."""
    return elem.encode(str_codec)


def decode_str(encoded: bytes | str | None, str_codec: str = "utf-8") -> Any:
    """Return an element as text; None unchanged.

    Raises:
        CodecError: the element is neither text nor bytes of that encoding.
    """
    if isinstance(encoded, str) or encoded is None:
        return encoded
    if not isinstance(encoded, (bytes, bytearray, memoryview)):
        raise CodecError(
            f"expected text, received {brief(encoded)} of type {type(encoded).__name__}"
        )
    try:
        return bytes(encoded).decode(str_codec)
    except UnicodeDecodeError:
        raise CodecError(
            f"expected {str_codec.upper()} text, received {brief(bytes(encoded))}"
        ) from None


class StringCodec(InputCodec):
    """A list of str <-> a BYTES tensor of shape [N, 1]."""

    ContentType = "str"
    TypeHint: ClassVar[Any] = list[str]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return is_list_of(payload, str)

    @classmethod
    def encode_output(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> ResponseOutput:
        data = [
            encode_str(text) if use_bytes and isinstance(text, str) else text for text in payload
        ]
        return bytes_output(name, data, cls.ContentType)

    @classmethod
    def encode_input(
        cls, name: str, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> RequestInput:
        return super().encode_input(name, payload, use_bytes=use_bytes, **kwargs)

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> list[Any]:
        try:
            return [decode_str(element) for element in elements(request_input)]
        except CodecError as error:
            raise CodecError(
                f"tensor '{request_input.name}' of content type str: {error.reason}"
            ) from None


class StringRequestCodec(SingleInputRequestCodec):
    """A list of str <-> a request of one tensor."""

    ContentType = StringCodec.ContentType
    TypeHint = StringCodec.TypeHint
    InputCodec = StringCodec
