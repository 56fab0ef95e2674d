"""Request and reply of an endpoint: bytes and headers, without ASGI's callbacks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..log_context import LogContext
from ..pipeline import RequestContext

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token in lower case, RFC 9110 5.6.2
# Headers of the body's framing and of the connection: the front end writes them, models cannot.
_FRAMING_HEADERS = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
RawHeaders = list[tuple[bytes, bytes]]
# A body in one piece, or in parts that are written one after another without being joined.
Body = bytes | list[bytes | memoryview]


class Headers(Mapping[str, str]):
    """Headers of a request by lower-case name, decoded on first access."""

    __slots__ = ("_raw", "_values")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self._values: dict[str, str] | None = None

    def _decode(self) -> dict[str, str]:
        if self._values is None:
            self._values = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in self._raw
            }
        return self._values

    def __getitem__(self, name: str) -> str:
        return self._decode()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decode())

    def __len__(self) -> int:
        return len(self._decode())


@dataclass(slots=True)
class Request:
    """One HTTP request.

    Attributes:
        path: Decoded except for slashes inside of segments (see `routing`), without the root path
            and without a trailing slash.
        raw_headers: As in the ASGI scope, with names in lower case.
        segments: Values of the variable segments of the path.
        client: Address and port of the client.
        template: The path with its variable segments as `{model_name}`; "" before routing.
        target: The path as it arrived.
        log: Its ids and trace.
        bytes_out: Bytes of the response's body that are written.
    """

    method: str
    path: str
    query: bytes
    raw_headers: RawHeaders
    segments: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: tuple[str, int] | None = None
    template: str = ""
    target: str = ""
    log: LogContext = field(default_factory=LogContext)
    bytes_out: int = 0

    @property
    def headers(self) -> Headers:
        return Headers(self.raw_headers)

    def header(self, name: bytes) -> bytes | None:
        """Return the first header with that (lower-case) name."""
        for key, value in self.raw_headers:
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Reply:
    """One HTTP response.

    Attributes:
        body: Complete, in parts, or an iterator for a stream.
        headers: From `raw_headers`; without those of the body.
        compress: Whether the body may be compressed. False for small documents: tritonclient's
            asyncio client accepts compressed ones but cannot read them.
        error: The error that the body reports in a format of its own, if any.
    """

    status: int = 200
    body: Body | AsyncIterator[bytes] = b""
    content_type: str = JSON
    headers: RawHeaders = field(default_factory=list)
    compress: bool = True
    error: Exception | None = None

    def all_headers(self) -> RawHeaders:
        """Return the headers of the body, then `headers`."""
        body = self.body
        body_headers: RawHeaders = []
        if isinstance(body, bytes):
            body_headers.append((b"content-length", b"%d" % len(body)))
        elif isinstance(body, list):
            body_headers.append((b"content-length", b"%d" % sum(map(len, body))))
        if self.content_type and body:
            body_headers.append((b"content-type", self.content_type.encode("latin-1")))
        return body_headers + self.headers


def create_context(request: Request) -> RequestContext:
    """Return the context of a routed request; its operation is the method and the template."""
    return RequestContext(
        headers=Headers(request.raw_headers),
        operation=f"{request.method} {request.template}",
        trace_parent=request.log.trace_parent,
    )


def raw_headers(pairs: Iterable[tuple[str, Any]]) -> RawHeaders:
    """Encode headers for ASGI: names in lower case, values without control characters."""
    return [(name.lower().encode("latin-1"), header_value(value)) for name, value in pairs]


def model_headers(pairs: Iterable[tuple[str, Any]]) -> RawHeaders:
    """Encode the headers that a model sets, except invalid names and `_FRAMING_HEADERS`."""
    headers: RawHeaders = []
    for raw_name, value in pairs:
        name = str(raw_name).lower()
        if _HEADER_NAME.fullmatch(name) and name not in _FRAMING_HEADERS:
            headers.append((name.encode("ascii"), header_value(value)))
    return headers


def split_content_type(headers: RawHeaders) -> tuple[str | None, RawHeaders]:
    """Return the last `content-type` (None = there is none) and the other headers."""
    content_type = dict(headers).get(b"content-type")
    others = [header for header in headers if header[0] != b"content-type"]
    return None if content_type is None else content_type.decode("latin-1"), others


def header_value(value: Any) -> bytes:
    """Encode a header's value without control characters, which could end the header."""
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.encode("latin-1", "replace")
