"""HTTP/1.1 on one connection: uvicorn's protocol, with the bounds that it lacks, in front of an `RequestResponseCycle` per request.

Headers, bodies, answers and silence have time limits (`bounds`); heads, chunks and pipelines have sizes; what two parsers could
read in two ways is refused; a caller who leaves ends its request.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ...logging import get_logger
from ...wire.json import write_document
from ..bounded_cache import BoundedCache
from ..routing import decode_path
from .cycle import RequestResponseCycle
from .timeouts import ConnectionState, ConnectionTimeouts

logger = get_logger().getChild("http")

MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together
MAX_HEADERS = 256
MAX_CHUNKS = 100_000  # of one body; each costs far more than the byte that it may carry
MAX_PIPELINED = 64  # requests of one connection that wait for the answer to an earlier one
LEAST_READ = (
    16 * 1024
)  # bytes of an answer that a caller takes per `body_timeout`, unless less is left


_NO_HTTP_2 = "HTTP/1.1 and HTTP/1.0 are spoken here; gRPC (HTTP/2) has a port of its own (setting 'grpc_port')"
_known_urls: BoundedCache[bytes, tuple[str, bytes, bytes]] = BoundedCache()


class RequestRejected(Exception):
    """A request that is not read any further.

    Args:
        status: HTTP status of the answer, after which the connection is closed.
        text: What is wrong.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Connection(HttpToolsProtocol):
    """One connection. Made by uvicorn, for each that it accepts."""

    cycle: RequestResponseCycle  # type: ignore[assignment]  # instead of uvicorn's own
    pipeline: deque[tuple[RequestResponseCycle, Any]]  # type: ignore[assignment]

    def __init__(self, bounds: ConnectionTimeouts, **options: Any) -> None:
        super().__init__(**options)
        self._bounds = bounds
        self._phase = ConnectionState.IDLE
        self._since = bounds.now
        self._arriving = 0  # bytes that the parser is being fed
        self._version = "1.1"
        self._head = 0  # bytes of an unfinished head before those
        self._is_upgrade = False  # the head asks for another protocol
        self._chunks = 0
        self._running: RequestResponseCycle | None = None  # the request that is being answered
        self._task: asyncio.Task[None] | None = None
        self._unread = 0  # bytes of answers that the caller had not taken when last looked at
        self._unread_since = bounds.now

    # -- asyncio's callbacks --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._bounds.max_connections:
            self._refuse(RequestRejected(503, "Too many connections (setting 'max_connections')"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # it refers to us
        self.flow.resume_writing()
        if self.cycle is not None:
            self.cycle.disconnected = not self.cycle.response_complete
            self.cycle.wake()
        if exc is None:
            self.transport.close()
        self.pipeline.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._phase is ConnectionState.ENDING:
            return
        self._arriving = len(data)
        try:
            self._parse(data)
            if self._phase is ConnectionState.HEAD:
                self._head += len(data)
                if self._head > MAX_HEAD:
                    raise RequestRejected(431, f"The headers are larger than {MAX_HEAD} bytes")
        except httptools.HttpParserError as error:
            is_http_2 = self.cycle is None and data.startswith(b"PRI * HTTP/2")
            self._refuse(RequestRejected(505, _NO_HTTP_2) if is_http_2 else _refusal(error))
        except RequestRejected as error:
            self._refuse(error)

    def _parse(self, data: bytes) -> None:
        """Feed the parser; requests that ask for another protocol are read as HTTP/1.1 requests."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade:
                    self._decline_tunnel()
                    return
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self._arriving = len(data)

    def _without_upgrade(self) -> bytes:
        """Return the head just read, without its Upgrade header, for a new parser.

        A server ignores an upgrade by answering over HTTP/1.1 (RFC 9110 7.8). llhttp takes what
        follows such a head for the other protocol, so the request is read a second time, body and
        all checks included.
        """
        method = self.parser.get_method()
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join((*lines, b"", b""))

    # -- the parser's callbacks --

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._phase = ConnectionState.HEAD
        self._since = self._bounds.now
        self._head = self._chunks = 0
        self._is_upgrade = False

    def on_headers_complete(self) -> None:
        headers = self.headers
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_upgrade = True  # read again, see `_without_upgrade`
            return
        self._check_head(headers)
        parser, version = self.parser, self._version
        self.cycle = exchange = RequestResponseCycle(
            self._scope(parser.get_method().decode("ascii"), headers),
            self,  # through us it writes and closes
            self.flow,
            self.server_state.default_headers,
            version != "1.0" and parser.should_keep_alive(),
            self.expect_100_continue,
            self.on_response_complete,
        )
        self.headers = []  # trailers come under the same name, and are not to join these
        self._phase = ConnectionState.BODY
        self._since = self._bounds.now
        limit = self.limit_concurrency
        full = limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)
        app = service_unavailable if full else self.app
        if self._running is None or self._running.response_complete:
            self._start(exchange, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, app))

    def _scope(self, method: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        path, raw_path, query = _known_urls.get(self.url) or _parsed(self.url)
        root = self.root_path
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": self._version,
            "method": method,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": root,
            "path": root + path,
            "raw_path": root.encode() + raw_path if root else raw_path,
            "query_string": query,
            "headers": headers,
            "state": {},
        }

    def _check_head(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse what the parser lets pass although the next one behind us might read it in another way."""
        version = self._version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise RequestRejected(505, _NO_HTTP_2)
        names = [name for name, _ in headers]
        hosts = names.count(b"host")
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            raise RequestRejected(400, "Invalid HTTP request: expected one Host header")
        if b"transfer-encoding" in names:
            coding = dict(headers)[b"transfer-encoding"].strip().lower()
            if coding != b"chunked" or version == "1.0":
                raise RequestRejected(
                    400, "Invalid HTTP request: the only Transfer-Encoding read here is 'chunked'"
                )
        if len(names) > MAX_HEADERS:
            raise RequestRejected(431, f"More than {MAX_HEADERS} headers")
        if self._head + self._arriving > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > MAX_HEAD:
                raise RequestRejected(431, f"The headers are larger than {MAX_HEAD} bytes")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RequestRejected(
                400, f"More than {MAX_PIPELINED} requests were sent without waiting for answers"
            )

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise RequestRejected(413, f"The body has more than {MAX_CHUNKS} chunks")

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        if not self.cycle.response_complete:
            self.cycle.end()
        running = self._running
        self._phase = (
            ConnectionState.ANSWER
            if running is not None and not running.response_complete
            else ConnectionState.IDLE
        )
        self._since = self._bounds.now

    # -- answering --

    def _start(self, exchange: RequestResponseCycle, app: Any) -> None:
        self._running = exchange
        self._task = self.loop.create_task(self._answer(exchange, app))

    async def _answer(self, exchange: RequestResponseCycle, app: Any) -> None:
        task = self._task
        assert task is not None
        self.tasks.add(task)
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.disconnected:
                self.transport.close()
                raise
        except Exception:
            logger.exception("An answer could not be sent")
            self.transport.close()
        else:
            if not exchange.response_complete and not exchange.disconnected:
                self.transport.close()
        finally:
            exchange.forget()
            self.tasks.discard(task)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._phase is ConnectionState.ENDING:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(*self.pipeline.pop())
        elif self._phase is ConnectionState.ANSWER:
            self._phase = ConnectionState.IDLE
            self._since = self._bounds.now

    # What an answer needs of a transport. `close` comes after a last answer, perhaps before the request is whole.

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        if self._phase in (ConnectionState.HEAD, ConnectionState.BODY):
            self._linger()
        else:
            self.transport.close()

    def is_ending(self) -> bool:
        return self._bounds.is_ending and not self.pipeline

    # -- ends --

    def close_if_idle(self, since: float) -> None:
        """Close the connection if it has been idle from that time on and nothing has arrived that is not read yet."""
        if (
            self._phase is not ConnectionState.IDLE
            or self._since > since
            or self.transport.is_closing()
        ):
            return
        if not is_readable(self.transport.get_extra_info("socket")):
            self.transport.close()

    def look(self) -> None:
        """End this connection if a time limit is over. Called every so often."""
        bounds = self._bounds
        self._look_at_unread()
        if self.flow.read_paused:
            self._since = bounds.now  # we do not read: the caller cannot be blamed
        elif bounds.expired(self._phase, self._since):
            if self._phase in (ConnectionState.IDLE, ConnectionState.ENDING):
                self.transport.close()
            else:
                what = "headers" if self._phase is ConnectionState.HEAD else "body"
                self._refuse(
                    RequestRejected(
                        408,
                        f"The request's {what} took too long (setting '{what.rstrip('s')}_timeout')",
                    )
                )

    def _look_at_unread(self) -> None:
        """Cut off a caller that does not read its answers."""
        bounds = self._bounds
        left = self.transport.get_write_buffer_size()
        if not left or left <= self._unread - LEAST_READ or left > self._unread:
            self._unread, self._unread_since = left, bounds.now
        elif bounds.now - self._unread_since > bounds.reading:
            self.transport.abort()

    def _refuse(self, error: RequestRejected) -> None:
        """Answer that a request is not read any further, and end the connection."""
        if self.transport.is_closing() or self._phase is ConnectionState.ENDING:
            return
        logger.debug("A connection is ended: %s", error.text)
        running = self._running
        if running is not None and not running.response_complete:
            if running is not self.cycle or self._phase is ConnectionState.HEAD:
                # An earlier request of this connection: it is answered, then the connection ends.
                self.pipeline.clear()
                running.keep_alive = False
                self._phase = ConnectionState.HEAD
                self.flow.pause_reading()
                return
            running.disconnected = True
            running.wake()
        in_body = (
            running is not None
            and running is self.cycle
            and self._phase is not ConnectionState.HEAD
        )
        if running is not None and in_body and running.response_started:
            self.transport.close()
            return
        self.transport.write(_answer(error))
        self._linger()

    def _linger(self) -> None:
        """End, but not before the caller had time to read: closing with unread bytes would throw the answer away."""
        self._phase, self._since = ConnectionState.ENDING, self._bounds.now
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _decline_tunnel(self) -> None:
        """Answer a CONNECT request over HTTP/1.1 and end the connection: what follows is not HTTP."""
        if self.cycle is not None:
            self.cycle.keep_alive = False
        if self._running is None or self._running.response_complete:
            self.transport.close()
        else:
            self._phase = ConnectionState.ANSWER
            self.flow.pause_reading()

    def shutdown(self) -> None:
        super().shutdown()
        if self._phase is ConnectionState.ENDING:
            self.transport.close()


def is_readable(connection: Any) -> bool:
    """Whether a socket has bytes that were not read yet, or a listening one connections."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _refusal(error: httptools.HttpParserError) -> RequestRejected:
    cause = error.__context__  # raised in one of our callbacks
    if isinstance(cause, RequestRejected):
        return cause
    is_callback = isinstance(error, httptools.HttpParserCallbackError)
    if is_callback and not isinstance(cause, (httptools.HttpParserError, UnicodeError)):
        # Not the caller's fault: a version of uvicorn or httptools, say, that lacks what this module uses.
        logger.error("A request could not be read", exc_info=cause)
        return RequestRejected(500, "The request could not be read: internal error of the server")
    return RequestRejected(
        400, f"Invalid HTTP request: {'not understood' if is_callback else error}"
    )


def _answer(error: RequestRejected) -> bytes:
    body = write_document({"error": error.text})
    head = (
        b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        % len(body)
    )
    return STATUS_LINE[error.status] + head + body


def _parsed(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's target."""
    found = httptools.parse_url(url)
    raw_path = found.path or b""
    return _known_urls.keep(
        url, (decode_path(raw_path.decode("ascii")), raw_path, found.query or b"")
    )
