"""Request and response cycle: ASGI's `receive` and `send` for one HTTP request on a connection.

A head and a complete body are one write, each header name is checked once and not per response,
and an event is created only when `receive` has to wait. Measured:
`docs/explanation/decisions/http.md`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol

from ..bounded_cache import BoundedCache
from .flow_control import HIGH_WATER, FlowControl

Message = MutableMapping[str, Any]
RawHeader = tuple[bytes, bytes]

# Bytes of head and body up to which both are joined into one write; above, the copy costs more.
_MAX_JOINED = 64 * 1024
_CONTROLS = bytes(code for code in range(32) if code != 9) + b"\x7f"
_STATUSES_WITHOUT_BODY = (204, 304)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name, RFC 9110 5.6.2
_FRAMING_HEADERS = frozenset((b"connection", b"content-length", b"transfer-encoding"))
_REASONS = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n".encode()
    for status in range(100, 600)
}
_lower_names: BoundedCache[bytes, bytes] = BoundedCache()


class ResponseWriter(Protocol):
    """The part of a connection that a cycle uses."""

    def close(self) -> None: ...

    def is_last_response(self) -> bool:
        """Whether the response that starts now is the last one of its connection."""
        ...


class RequestResponseCycle:
    """One request and its response.

    Args:
        scope: The ASGI scope.
        writer: The connection.
        flow: Pauses reading while the request's body is not received by the application, and
            writing while the client does not read. Its transport receives the response.
        default_headers: Precede the headers of the response.
        keep_alive: Whether the connection stays open for another request.
        expects_continue: Whether the client waits for `100 Continue` before it sends the body.
        on_complete: Called once, when the response is written.

    Attributes:
        more_body: Whether the rest of the request's body has yet to arrive.
        disconnected: Whether the client has disconnected; set by the connection, which then calls
            `notify`.
    """

    __slots__ = (
        "_buffered",
        "_default_headers",
        "_event",
        "_expects_continue",
        "_flow",
        "_head",
        "_is_chunked",
        "_is_notified",
        "_on_complete",
        "_parts",
        "_remaining",
        "_until_close",
        "_writer",
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
        writer: ResponseWriter,
        flow: FlowControl,
        default_headers: list[RawHeader],
        keep_alive: bool,
        expects_continue: bool,
        on_complete: Callable[[], None],
    ) -> None:
        self.scope = scope
        self._writer = writer
        self._flow = flow
        self._default_headers = default_headers
        self.keep_alive = keep_alive
        self._expects_continue = expects_continue
        self._on_complete: Callable[[], None] | None = on_complete
        self.disconnected = False

        self._parts: list[bytes] = []
        self._buffered = 0  # bytes in `_parts`
        self.more_body = True
        self._is_notified = False
        self._event: asyncio.Event | None = None

        self.response_started = False
        self.response_complete = False
        self._head = b""
        self._is_chunked = self._until_close = False
        self._remaining = 0  # bytes of the declared content-length that are not written yet

    def release(self) -> None:
        """Drop the callback of a response that will not be complete."""
        self._on_complete = None

    # -- the request --

    def feed_body(self, part: bytes) -> None:
        """Buffer a part of the request's body for `receive`."""
        self._parts.append(part)
        self._buffered += len(part)
        if self._buffered > HIGH_WATER:
            self._flow.pause_reading()
        self._is_notified = True
        if self._event is not None:
            self._event.set()

    def end_body(self) -> None:
        """Note that the request is complete."""
        self.more_body = False
        self._is_notified = True
        if self._event is not None:
            self._event.set()

    def notify(self) -> None:
        """Make `receive` return, because the client has disconnected."""
        self._is_notified = True
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        """ASGI `receive`: return the next part of the body, or the disconnect."""
        if self._expects_continue and not self._flow.transport.is_closing():
            self._expects_continue = False
            self._flow.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            if self._flow.is_read_paused:
                self._flow.resume_reading()
            if not self._is_notified:
                await self._wait_notified()
            self._is_notified = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        parts, self._parts, self._buffered = self._parts, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait_notified(self) -> None:
        if self._event is None:
            self._event = asyncio.Event()
        self._event.clear()
        await self._event.wait()

    # -- the response --

    async def send(self, message: Message) -> None:
        """ASGI `send`: write the head of the response, then its body in one or more parts.

        Raises:
            RuntimeError: the messages are not a valid HTTP response.
        """
        if self._flow.is_write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self.response_started = True
            self._expects_continue = False
            self._prepare_head(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message {kind!r}")

    def _prepare_head(self, status: int, headers: Iterable[RawHeader]) -> None:
        """Encode the head; it is written with the first part of the body."""
        parts, line_count, length = [STATUS_LINES[status]], 2, None
        has_close = False
        for raw_name, value in chain(self._default_headers, headers):
            name = _lower_names.get(raw_name) or _check_name(raw_name)
            if name in _FRAMING_HEADERS:
                if name == b"content-length":
                    length = int(value)
                elif name == b"transfer-encoding":
                    self._is_chunked = True
                elif b"close" in value.lower():
                    has_close = True
            parts += (name, b": ", value, b"\r\n")
            line_count += 1
        if has_close or self._writer.is_last_response():
            self.keep_alive = False
        if not has_close and not self.keep_alive:
            parts.append(b"connection: close\r\n")
            line_count += 1
        has_no_body = self.scope["method"] == "HEAD" or status in _STATUSES_WITHOUT_BODY
        if length is None and not self._is_chunked and not has_no_body:
            if self.scope["http_version"] == "1.0":  # has no chunks, and keeps no connection
                self._until_close = True
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
                line_count += 1
        self._remaining = 0 if length is None or self._is_chunked else length
        parts.append(b"\r\n")
        self._head = head = b"".join(parts)
        # Each line ends with CR and LF; any other control character is inside of a value.
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * line_count:
            raise RuntimeError("Invalid header value: expected no control characters")

    def _write_body(self, body: bytes | memoryview, more_body: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self._remaining, body = 0, b""
        elif self._is_chunked:
            body = _encode_chunk(body, more_body)
        elif not self._until_close:
            self._remaining -= len(body)
            if self._remaining < 0:
                raise RuntimeError("The response is longer than its content-length")
        write = self._flow.transport.write
        if len(head) + len(body) <= _MAX_JOINED:
            write(b"".join((head, body)) if head else bytes(body))
        else:
            if head:
                write(head)
            write(body)
        if not more_body:
            self._complete()

    def _complete(self) -> None:
        if self._remaining:
            raise RuntimeError("The response is shorter than its content-length")
        self.response_complete = True
        if self._event is not None:
            self._event.set()
        if not self.keep_alive:
            self._writer.close()
        on_complete, self._on_complete = self._on_complete, None
        if on_complete is not None:
            on_complete()


def _encode_chunk(body: bytes | memoryview, more_body: bool) -> bytes:
    chunk = b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if len(body) else b""
    return chunk if more_body else chunk + b"0\r\n\r\n"


def _check_name(name: bytes) -> bytes:
    """Return a header's name in lower case. Raises `RuntimeError` if it is no token."""
    if not _TOKEN.fullmatch(name):
        raise RuntimeError(f"Invalid header name: expected an RFC 9110 token, received {name!r}")
    return _lower_names.store(name, name.lower())
