"""One HTTP request and its answer on a connection: ASGI's `receive` and `send` in front of a transport.

Does what uvicorn's cycle does at a third of its cost: a head and a body that is whole leave in one write, names of headers
are checked once and not with every answer, and no event is made unless somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from itertools import chain
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE

Message = MutableMapping[str, Any]
RawHeader = tuple[bytes, bytes]

_JOINED = (
    64 * 1024
)  # bytes of a body up to which it is copied behind its head, so that both are one write
_CONTROLS = bytes(code for code in range(32) if code != 9) + b"\x7f"
_WITHOUT_BODY = (204, 304)
# Names of headers that were found good -> in lower case.
_names: dict[bytes, bytes] = {}


class ResponseWriter(Protocol):
    """What an answer needs of a transport."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool: ...

    def close(self) -> None: ...

    def is_ending(self) -> bool:
        """Whether the answer that begins is the last one of its connection."""
        ...


class RequestResponseCycle:
    """A request as it arrives, and its answer as it leaves.

    Args:
        scope: ASGI's; its `headers` are complete.
        sink: Where the answer is written.
        flow: Pauses the reading of what is not taken, and the writing of what is not read.
        default_headers: Go in front of each answer's own.
        keep_alive: Whether the caller may ask again on this connection.
        expects_continue: Whether the caller waits to be asked for the body.
        on_complete: Called once, when the answer is written.

    Attributes:
        more_body: Whether the rest of the request is still to come.
        disconnected: Nobody is there any more; set by the connection, followed by `wake`.
    """

    __slots__ = (
        "_chunked",
        "_default_headers",
        "_event",
        "_expects_continue",
        "_flow",
        "_head",
        "_left",
        "_news",
        "_on_complete",
        "_parts",
        "_sink",
        "_until_close",
        "_waiting",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
    )

    def __init__(
        self,
        scope: Message,
        sink: ResponseWriter,
        flow: FlowControl,
        default_headers: list[RawHeader],
        keep_alive: bool,
        expects_continue: bool,
        on_complete: Callable[[], None],
    ) -> None:
        self.scope = scope
        self._sink = sink
        self._flow = flow
        self._default_headers = default_headers
        self.keep_alive = keep_alive
        self._expects_continue = expects_continue
        self._on_complete: Callable[[], None] | None = on_complete
        self.disconnected = False

        self._parts: list[bytes] = []
        self._waiting = 0  # bytes in them
        self.more_body = True
        self._news = False
        self._event: asyncio.Event | None = None

        self.response_started = False
        self.response_complete = False
        self._head = b""
        self._chunked = self._until_close = False
        self._left = 0  # bytes of the body that are still to be written, as its content-length says

    def forget(self) -> None:
        """The connection is done with this exchange: what is complete refers to nothing."""
        self._on_complete = None

    # -- the request --

    def feed(self, part: bytes) -> None:
        """A part of the request's body."""
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self.wake()

    def end(self) -> None:
        """The request is whole."""
        self.more_body = False
        self.wake()

    def wake(self) -> None:
        """Something happened that `receive` may tell."""
        self._news = True
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        """ASGI: the next part of the body, or that the caller is gone."""
        if self._expects_continue and not self._sink.is_closing():
            self._expects_continue = False
            self._sink.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            self._flow.resume_reading()
            if not self._news:
                await self._next_news()
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        parts, self._parts, self._waiting = self._parts, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _next_news(self) -> None:
        if self._event is None:
            self._event = asyncio.Event()
        self._event.clear()
        await self._event.wait()

    # -- the answer --

    async def send(self, message: Message) -> None:
        """ASGI: the head of the answer, then its body in one part or several.

        Raises:
            RuntimeError: what is sent is no HTTP answer.
        """
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self.response_started = True
            self._expects_continue = False
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"The ASGI message {kind!r} was sent out of turn")

    def _begin(self, status: int, headers: Iterable[RawHeader]) -> None:
        """Make the head; it is written with the first part of the body."""
        parts, lines, length = [STATUS_LINE[status]], 2, None
        closing = False
        for given, value in chain(self._default_headers, headers):
            name = _names.get(given) or _checked(given)
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                closing = True
            elif name == b"transfer-encoding":
                self._chunked = True
            parts += (name, b": ", value, b"\r\n")
            lines += 1
        if closing or self._sink.is_ending():
            self.keep_alive = False
        if not closing and not self.keep_alive:
            parts.append(b"connection: close\r\n")
            lines += 1
        bare = self.scope["method"] == "HEAD" or status in _WITHOUT_BODY
        if (
            length is None
            and not self._chunked
            and not bare
            and self.scope["http_version"] == "1.0"
        ):
            self._until_close = True  # HTTP/1.0 has no chunks; and no such connection is kept
        elif length is None and not self._chunked and not bare:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        self._left = 0 if length is None or self._chunked else length
        parts.append(b"\r\n")
        self._head = head = b"".join(parts)
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * lines:
            raise RuntimeError("A header's value has control characters")

    def _write_body(self, body: bytes | memoryview, more: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self._left, body = 0, b""
        elif self._chunked:
            body = _chunk(body, more)
        elif not self._until_close:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("The answer is longer than its content-length")
        if len(head) + len(body) <= _JOINED:
            self._sink.write(b"".join((head, body)) if head else bytes(body))
        else:
            if head:
                self._sink.write(head)
            self._sink.write(body)  # type: ignore[arg-type]  # transports take views
        if not more:
            self._complete()

    def _complete(self) -> None:
        if self._left:
            raise RuntimeError("The answer is shorter than its content-length")
        self.response_complete = True
        self.wake()
        if not self.keep_alive:
            self._sink.close()
        if self._on_complete is not None:
            self._on_complete()


def _chunk(body: bytes | memoryview, more: bool) -> bytes:
    chunk = b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if len(body) else b""
    return chunk if more else chunk + b"0\r\n\r\n"


def _checked(name: bytes) -> bytes:
    """The name in lower case. Raises `RuntimeError` for what is no name of a header."""
    if not name or HEADER_RE.search(name):
        raise RuntimeError("Invalid name of a header")
    lower = name.lower()
    if len(_names) < 1024:
        _names[name] = lower
    return lower
