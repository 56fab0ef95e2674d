"""Bodies of requests: read under a limit, counted after decompression; and answers compressed."""

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

# Sizes from which (de)compression leaves the event loop: below, the hop to a thread costs more than the work.
_OFF_LOOP = 64 * 1024
MIN_COMPRESSED = 500
_LEVEL = 4
_SAMPLE = 4096
_SLICE = 16 * 1024
_MOST_ENCODINGS = 2  # one over another; each may be as large as a body may
# Bytes that a compressed body may become, whatever its size, and times its size beyond that: zeros
# shrink a thousandfold, numbers and texts of a request rarely tenfold.
_FREE_EXPANSION = 1024 * 1024
_MAX_EXPANSION = 100
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class ClientGone(Exception):
    """The caller closed the connection before its request was whole."""


async def read_body(request: Request, receive: Receive, limit: int) -> bytes:
    """The whole body, decompressed.

    Raises:
        PayloadTooLarge: more than `limit` bytes, declared, received or after decompression.
        UnsupportedMediaType: an encoding that is not gzip or deflate.
        ClientGone: there is nobody to answer.
    """
    declared = request.header(b"content-length")
    if (
        declared is not None
        and declared.isdigit()
        and (len(declared) > 18 or int(declared) > limit)
    ):
        raise PayloadTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_rest(body, receive, limit)
    if len(body) > limit:
        raise PayloadTooLarge(limit)
    encoding = request.header(b"content-encoding")
    return await _decoded(body, encoding.decode("latin-1"), limit) if encoding else body


async def _read_rest(start: bytes, receive: Receive, limit: int) -> bytes:
    collected = io.BytesIO()  # grows in place, and gives its bytes away without a copy
    collected.write(start)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        collected.write(message.get("body", b""))
        if collected.tell() > limit:
            raise PayloadTooLarge(limit)
        if not message.get("more_body", False):
            return collected.getvalue()


async def _decoded(body: bytes, encodings: str, limit: int) -> bytes:
    names = [
        name
        for part in encodings.split(",")
        if (name := part.strip().lower()) not in ("", "identity")
    ]
    bound = max(_FREE_EXPANSION, _MAX_EXPANSION * len(body))
    if len(names) > _MOST_ENCODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding: at most {_MOST_ENCODINGS} are supported, received {len(names)}"
        )
    for name in reversed(names):
        if name not in _WINDOWS:
            raise UnsupportedMediaType(
                f"Content-Encoding '{name}' is not supported; supported: gzip, deflate, identity"
            )
        if len(body) >= _OFF_LOOP // 16:
            body = await asyncio.to_thread(_inflate_bounded, body, name, limit, bound)
        else:
            body = _inflate_bounded(body, name, limit, bound)
    return body


def _inflate_bounded(data: bytes, name: str, limit: int, bound: int) -> bytes:
    """Decompress up to `limit` bytes, the largest body, and up to `bound` bytes, for a body of this size."""
    try:
        return inflate(data, name, min(limit, bound))
    except PayloadTooLarge:
        if limit <= bound:
            raise
        raise MLServerError(
            f"Request body grows to more than {_MAX_EXPANSION} times its size when decompressed "
            f"({bound} bytes): send it with less compression, or without Content-Encoding",
            413,
        ) from None


def inflate(data: bytes, name: str, limit: int) -> bytes:
    """Decompress up to `limit` bytes and never hold more than that.

    Raises:
        PayloadTooLarge: there is more.
        MLServerError: the data is broken.
    """
    try:
        return _inflate(data, _WINDOWS[name], limit)
    except zlib.error as error:
        if name == "deflate":
            # Some clients send the raw stream, without zlib's header, under this name.
            try:
                return _inflate(data, -zlib.MAX_WBITS, limit)
            except zlib.error:
                pass
        raise MLServerError(
            f"Invalid body: expected {name} data, received data that does not decompress"
        ) from error


def _inflate(data: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    left, at, stream = limit, 0, zlib.decompressobj(window)
    # In slices, for zlib copies what lies behind the end of a member, and a gzip body may have very many members.
    while at < len(data):
        piece = data[at : at + _SLICE]
        part = stream.decompress(piece, left + 1)
        parts.append(part)
        left -= len(part)
        if left < 0 or stream.unconsumed_tail:
            raise PayloadTooLarge(limit)
        at += len(piece) - len(stream.unused_data)
        if stream.eof:
            if window <= zlib.MAX_WBITS or at == len(data):
                return b"".join(parts)
            stream = zlib.decompressobj(window)
    raise zlib.error("the data ends early")


async def compressed(body: Body, accepted: bytes) -> tuple[Body, str]:
    """The body in an encoding that the caller accepts, and that encoding's name ("" = as it is)."""
    name = _choose(accepted.decode("latin-1"))
    if not name:
        return body, ""
    if isinstance(body, bytes):
        return await _compress(body, name), name
    if not _shrinks(body):
        return body, ""
    return await _compress(b"".join(body), name), name


async def _compress(body: bytes, name: str) -> bytes:
    work = gzip.compress if name == "gzip" else zlib.compress
    if len(body) >= _OFF_LOOP:
        return await asyncio.to_thread(work, body, _LEVEL)
    return work(body, _LEVEL)


def _shrinks(parts: list[bytes | memoryview]) -> bool:
    """Whether binary data is worth compressing: most clients accept it unasked, and most numbers do not get smaller."""
    sample = b"".join(bytes(part[:_SAMPLE]) for part in parts[:8])
    return len(zlib.compress(sample, 1)) < 0.8 * len(sample)


def _choose(accepted: str) -> str:
    """gzip or deflate, whichever is accepted with a quality above zero, gzip first."""
    offered: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, options = part.partition(";")
        _, _, quality = options.partition("q=")
        try:
            offered[name.strip()] = float(quality) if quality.strip() else 1.0
        except ValueError:
            offered[name.strip()] = 0.0
    for name in ("gzip", "deflate"):
        if offered.get(name, 0.0) > 0:
            return name
    return ""
