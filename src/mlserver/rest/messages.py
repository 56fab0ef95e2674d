"""A request and a reply as the endpoints see them: bytes and headers, without ASGI's callbacks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
# RFC 9110 5.6.2: what a header may be called.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
# What the front end says itself of an answer's size and its connection.
_FRAMING = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
RawHeaders = list[tuple[bytes, bytes]]
# A body in one piece, or in parts that are sent one after another without being joined.
Body = bytes | list[bytes | memoryview]


class Headers(Mapping[str, str]):
    """Header names (lower case) and values of a request, decoded when somebody looks."""

    __slots__ = ("_raw", "_values")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self._values: dict[str, str] | None = None

    def _decoded(self) -> dict[str, str]:
        if self._values is None:
            self._values = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in self._raw
            }
        return self._values

    def __getitem__(self, name: str) -> str:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())


@dataclass(slots=True)
class Request:
    """One HTTP request.

    Attributes:
        path: Decoded but for slashes in segments (see `routing`), without the root path and without a trailing slash.
        raw_headers: As ASGI gives them: names in lower case.
        segments: What the variable parts of the path matched.
        client: Address and port of the other end of the connection.
        template: The path with its variable parts as `{model_name}`; "" until it is known.
    """

    method: str
    path: str
    query: bytes
    raw_headers: RawHeaders
    segments: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: tuple[str, int] | None = None
    template: str = ""

    @property
    def operation(self) -> str:
        """Method and template: what spans are called."""
        return f"{self.method} {self.template}"

    @property
    def headers(self) -> Headers:
        return Headers(self.raw_headers)

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        for key, value in self.raw_headers:
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Reply:
    """One HTTP answer. `body` is whole, in parts, or an iterator for a stream; `headers` are as `raw_headers` makes them."""

    status: int = 200
    body: Body | AsyncIterator[bytes] = b""
    content_type: str = JSON
    headers: RawHeaders = field(default_factory=list)
    # False for small documents: tritonclient's asyncio form accepts compressed ones, but cannot read them.
    compress: bool = True

    def all_headers(self) -> RawHeaders:
        """Those of the body, then `headers`."""
        body, own = self.body, []
        if isinstance(body, bytes):
            own.append((b"content-length", b"%d" % len(body)))
        elif isinstance(body, list):
            own.append((b"content-length", b"%d" % sum(map(len, body))))
        if self.content_type and body:
            own.append((b"content-type", self.content_type.encode("latin-1")))
        return own + self.headers


def raw_headers(pairs: Iterable[tuple[str, Any]]) -> RawHeaders:
    """Headers as ASGI wants them: names in lower case, and nothing in a value that could end it."""
    return [(name.lower().encode("latin-1"), header_value(value)) for name, value in pairs]


def model_headers(pairs: Iterable[tuple[str, Any]]) -> RawHeaders:
    """Headers that a model gives its answer, without those that are no headers or that frame the answer."""
    named = ((str(name).lower(), value) for name, value in pairs)
    return [
        (name.encode("ascii"), header_value(value))
        for name, value in named
        if _HEADER_NAME.fullmatch(name) and name not in _FRAMING
    ]


def header_value(value: Any) -> bytes:
    """A value as header bytes; control characters, which could end the header, are left out."""
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text.encode("latin-1", "replace")
