"""Bodies: requests are read under a limit and decompressed, responses are compressed."""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ...errors import MLServerError, PayloadTooLarge, UnsupportedMediaType
from ..messages import Body, Request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Bytes from which data is compressed or decompressed in a thread: below, the switch costs more than
# the work.
_MIN_COMPRESSED_IN_THREAD = 64 * 1024
_MIN_DECOMPRESSED_IN_THREAD = 4 * 1024
MIN_COMPRESSED = 500
_LEVEL = 4
_SAMPLE_SIZE = 4096
_SLICE_SIZE = 16 * 1024
_MAX_ENCODINGS = 2  # applied one over the other; the result of each may be as large as a body
# A compressed body may expand to 1 MiB, whatever its size, and to 100 times its size: zeros shrink
# a thousandfold, numbers and texts of a request rarely tenfold.
_FREE_EXPANSION = 1024 * 1024
_MAX_EXPANSION = 100
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class ClientDisconnected(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(request: Request, receive: Receive, limit: int) -> bytes:
    """Return the complete body, decompressed.

    Raises:
        PayloadTooLarge: more than `limit` bytes are declared, received or decompressed.
        UnsupportedMediaType: the encoding is not gzip or deflate.
        ClientDisconnected: no client is left to respond to.
    """
    headers = dict(request.raw_headers)
    length = headers.get(b"content-length", b"")
    # `int` of thousands of digits is slow.
    if length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise PayloadTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_rest(body, receive, limit)
    if len(body) > limit:
        raise PayloadTooLarge(limit)
    if b"content-encoding" not in headers:
        return body
    lines = [value for name, value in request.raw_headers if name == b"content-encoding"]
    return await _decompress(body, b",".join(lines).decode("latin-1"), limit)


async def _read_rest(start: bytes, receive: Receive, limit: int) -> bytes:
    buffer = io.BytesIO()  # grows in place, and `getvalue` shares its bytes without a copy
    buffer.write(start)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        buffer.write(message.get("body", b""))
        if buffer.tell() > limit:
            raise PayloadTooLarge(limit)
        if not message.get("more_body", False):
            return buffer.getvalue()


async def _decompress(body: bytes, encodings: str, limit: int) -> bytes:
    listed = [part.strip().lower() for part in encodings.split(",")]
    names = [name for name in listed if name not in ("", "identity")]
    max_expanded = max(_FREE_EXPANSION, _MAX_EXPANSION * len(body))
    if len(names) > _MAX_ENCODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding: expected at most {_MAX_ENCODINGS} encodings, received {len(names)}"
        )
    for name in reversed(names):
        if name not in _WINDOWS:
            raise UnsupportedMediaType(
                f"Content-Encoding '{name}' is not supported; supported: gzip, deflate, identity"
            )
        if len(body) >= _MIN_DECOMPRESSED_IN_THREAD:
            body = await asyncio.to_thread(_inflate_bounded, body, name, limit, max_expanded)
        else:
            body = _inflate_bounded(body, name, limit, max_expanded)
    return body


def _inflate_bounded(data: bytes, name: str, limit: int, max_expanded: int) -> bytes:
    """Decompress up to `limit` bytes (of any body) and `max_expanded` bytes (of a body of this
    size).
    """
    try:
        return inflate(data, name, min(limit, max_expanded))
    except PayloadTooLarge:
        if limit <= max_expanded:
            raise
        raise MLServerError(
            f"Request body grows to more than {_MAX_EXPANSION} times its size when decompressed "
            f"({max_expanded} bytes): send it with less compression, or without Content-Encoding",
            413,
        ) from None


def inflate(data: bytes, name: str, limit: int) -> bytes:
    """Decompress up to `limit` bytes, without ever holding more.

    Raises:
        PayloadTooLarge: the data decompresses to more.
        MLServerError: the data is not valid.
    """
    try:
        return _inflate(data, _WINDOWS[name], limit)
    except zlib.error as error:
        if name == "deflate":
            # Some clients send a raw deflate stream, without the zlib header, under this name.
            try:
                return _inflate(data, -zlib.MAX_WBITS, limit)
            except zlib.error:
                pass
        raise MLServerError(
            f"Invalid body: expected {name} data, received data that does not decompress"
        ) from error


def _inflate(data: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    remaining, offset, stream = limit, 0, zlib.decompressobj(window)
    # In slices: zlib copies what follows the end of a gzip member, and a body may have very many
    # members.
    while offset < len(data):
        piece = data[offset : offset + _SLICE_SIZE]
        part = stream.decompress(piece, remaining + 1)
        parts.append(part)
        remaining -= len(part)
        if remaining < 0 or stream.unconsumed_tail:
            raise PayloadTooLarge(limit)
        offset += len(piece) - len(stream.unused_data)
        if stream.eof:
            if window <= zlib.MAX_WBITS or offset == len(data):
                return b"".join(parts)
            stream = zlib.decompressobj(window)
    raise zlib.error("the data is truncated")


async def compress(body: Body, accepted: bytes) -> tuple[Body, str]:
    """Return the body in an encoding that the client accepts, and the encoding's name ("" =
    unchanged).
    """
    name = _choose_encoding(accepted.decode("latin-1"))
    if not name:
        return body, ""
    if isinstance(body, bytes):
        return await _compress(body, name), name
    if not _is_compressible(body):
        return body, ""
    return await _compress(b"".join(body), name), name


async def _compress(body: bytes, name: str) -> bytes:
    function = gzip.compress if name == "gzip" else zlib.compress
    if len(body) >= _MIN_COMPRESSED_IN_THREAD:
        return await asyncio.to_thread(function, body, _LEVEL)
    return function(body, _LEVEL)


def _is_compressible(parts: list[bytes | memoryview]) -> bool:
    """Return whether a sample of binary data shrinks by a fifth: most clients accept gzip by
    default, and most floating-point data does not shrink.
    """
    sample = b"".join(bytes(part[:_SAMPLE_SIZE]) for part in parts[:8])
    return len(zlib.compress(sample, 1)) < 0.8 * len(sample)


def _choose_encoding(accepted: str) -> str:
    """Return "gzip" or "deflate", the first that is accepted with a quality above zero, or ""."""
    qualities: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, options = part.partition(";")
        _, _, quality = options.partition("q=")
        try:
            qualities[name.strip()] = float(quality) if quality.strip() else 1.0
        except ValueError:
            qualities[name.strip()] = 0.0
    for name in ("gzip", "deflate"):
        if qualities.get(name, 0.0) > 0:
            return name
    return ""
