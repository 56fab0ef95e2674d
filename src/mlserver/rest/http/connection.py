"""HTTP/1.1 connection: an asyncio protocol on httptools' parser.

Headers, bodies, responses and idle time have time limits (`timeouts`); heads, chunks and pipelines
have size limits; what two parsers could read differently is rejected (`request_head`); when the
client disconnects, its request is cancelled. Why not uvicorn's protocol:
`docs/explanation/decisions/http.md`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools

from ...sockets import get_address, is_readable
from ..messages import RawHeaders
from .cycle import RequestResponseCycle
from .flow_control import FlowControl
from .request_head import (
    WRONG_VERSION,
    RequestRejected,
    check_head,
    check_head_size,
    encode_head,
    encode_rejection,
    from_parser_error,
    logger,
    parse_target,
    time_exceeded,
)
from .timeouts import ConnectionState, ConnectionTimeouts

MAX_CHUNKS = 100_000  # of one body; a chunk costs far more than the one byte that it may hold
MAX_REFUSED = 256  # connections over `max_connections` that stay open to read their 503
MAX_PIPELINED = 64  # requests of one connection that wait for the response to an earlier one
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Connection(asyncio.Protocol):
    """One connection, created by `uvicorn.Server`, which passes all arguments but the first.

    Args:
        timeouts: Time limits, shared by the listener's connections.
        config: `uvicorn.Config`; supplies the application, the root path and `limit_concurrency`.
        server_state: Connections, tasks and default headers of the listener.
    """

    def __init__(
        self, timeouts: ConnectionTimeouts, *, config: Any, server_state: Any, **_options: Any
    ) -> None:
        self._timeouts = timeouts
        self._app = config.loaded_app
        self._root_path: str = config.root_path
        self._limit_concurrency: int | None = config.limit_concurrency
        self._server_state = server_state
        self._connections: set[Any] = server_state.connections
        self._tasks: set[asyncio.Task[None]] = server_state.tasks
        self._loop = asyncio.get_running_loop()
        self._parser = self._create_parser()

        self._state = ConnectionState.IDLE
        self._since = timeouts.now
        self._cycle: RequestResponseCycle | None = None  # the request that is being read
        self._running: RequestResponseCycle | None = None  # the request that is being answered
        self._task: asyncio.Task[None] | None = None
        self._pipeline: deque[RequestResponseCycle] = deque()
        # The request that is being parsed.
        self._target, self._version = b"", "1.1"
        self._headers: RawHeaders = []
        self._expects_continue = False
        self._is_upgrade = False  # the head has `Upgrade`
        self._chunk_count = 0
        # Bytes that are certainly the head's, of earlier reads; then those without a body's part.
        self._head_size = 0
        self._max_head_size = 0  # with all bytes of the read in which the head began
        self._read_size = self._requests_in_read = 0  # of the present read

    def _create_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Data after a request with `Connection: close` is no error: the request gets its response.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    # -- asyncio's callbacks --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connections.add(self)
        self._transport = transport
        self._flow = FlowControl(transport)
        self._server_address = get_address(transport, "sockname")
        self._client_address = get_address(transport, "peername")
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        excess = len(self._connections) - self._timeouts.max_connections
        if excess > MAX_REFUSED:
            transport.abort()
        elif excess > 0:
            self._reject(RequestRejected(503, "Too many connections (setting 'max_connections')"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._parser = None  # type: ignore[assignment]  # break the reference cycle
        self._flow.resume_writing()
        if self._cycle is not None:
            self._cycle.disconnected = not self._cycle.response_complete
            self._cycle.notify()
        if exc is None:
            self._transport.close()
        self._pipeline.clear()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is ConnectionState.CLOSING:
            return
        self._read_size = len(data)
        is_between = state is ConnectionState.IDLE or state is ConnectionState.RESPONSE
        self._requests_in_read = 0 if is_between else 1
        try:
            self._parse(data)
            if self._state is not ConnectionState.RESPONSE:
                self._count_unfinished()
        except httptools.HttpParserError as error:
            if self._cycle is None and data.startswith(b"PRI * HTTP/2"):
                self._reject(RequestRejected(505, WRONG_VERSION))
            else:
                self._reject(from_parser_error(error))
        except RequestRejected as error:
            self._reject(error)

    def _count_unfinished(self) -> None:
        """Limit a head, and what has no part of the body: chunk extensions and trailers."""
        if self._state is ConnectionState.HEAD:
            self._max_head_size += self._read_size
        elif self._state is not ConnectionState.BODY:
            return
        # Behind another request in its first read, the head has an unknown part of the bytes. That
        # read is not counted: an incomplete head may exceed the limit by one read.
        if self._requests_in_read == 1:
            self._head_size += self._read_size
            check_head_size(self._head_size, len(self._headers))

    def _parse(self, data: bytes) -> None:
        """Feed the parser; a request to upgrade is read as an HTTP/1.1 request."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade:
                    self._decline_tunnel()
                    return
                data = self._remove_upgrade() + data[upgrade.args[0] :]
                self._read_size = len(data)
            # Not in the handler: an error of the next parser would have this one as its context.

    def _remove_upgrade(self) -> bytes:
        """Return the head just parsed, without its Upgrade header, for a new parser.

        A server ignores an upgrade by answering over HTTP/1.1 (RFC 9110 7.8). llhttp takes what
        follows such a head for the other protocol, so the request is parsed a second time, body and
        all checks included.
        """
        head = encode_head(
            self._parser.get_method(),
            self._target,
            self._parser.get_http_version(),
            [pair for pair in self._headers if pair[0] != b"upgrade"],
        )
        self._parser = self._create_parser()
        return head

    # -- the parser's callbacks --

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._expects_continue = self._is_upgrade = False
        self._chunk_count = self._head_size = self._max_head_size = 0
        self._requests_in_read += 1
        self._state, self._since = ConnectionState.HEAD, self._timeouts.now

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        method = parser.get_method().decode("ascii")
        if parser.should_upgrade() and method != "CONNECT":
            self._is_upgrade = True  # parsed again, see `_remove_upgrade`
            return
        version = self._version = parser.get_http_version()
        check_head(version, self._target, headers, self._max_head_size + self._read_size)
        if self._pipeline or self._limit_concurrency is not None:
            self._check_capacity()
        self._cycle = cycle = RequestResponseCycle(
            self._create_scope(method, headers),
            self,
            self._flow,
            self._server_state.default_headers,
            version != "1.0" and parser.should_keep_alive(),
            self._expects_continue,
            self._on_response_complete,
        )
        self._headers = []  # `on_header` is called for trailers too; they are not headers
        self._state, self._since = ConnectionState.BODY, self._timeouts.now
        if self._running is None or self._running.response_complete:
            self._start(cycle)
        else:
            self._flow.pause_reading()
            self._pipeline.append(cycle)

    def _check_capacity(self) -> None:
        if len(self._pipeline) >= MAX_PIPELINED:
            raise RequestRejected(
                400, f"Pipelined requests: expected at most {MAX_PIPELINED}, received more"
            )
        limit = self._limit_concurrency
        if limit is not None and max(len(self._connections), len(self._tasks)) >= limit:
            raise RequestRejected(503, "Too many requests or connections ('limit_concurrency')")

    def _create_scope(self, method: str, headers: RawHeaders) -> dict[str, Any]:
        path, raw_path, query = parse_target(self._target)
        root = self._root_path
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._version,
            "method": method,
            "server": self._server_address,
            "client": self._client_address,
            "scheme": self._scheme,
            "root_path": root,
            "path": root + path,
            "raw_path": root.encode() + raw_path if root else raw_path,
            "query_string": query,
            "headers": headers,
        }

    def on_chunk_header(self) -> None:
        self._head_size = -self._read_size  # this read is not counted
        self._chunk_count += 1
        if self._chunk_count > MAX_CHUNKS:
            raise RequestRejected(413, f"Request body: expected at most {MAX_CHUNKS} chunks")

    def on_chunk_complete(self) -> None:
        if self._headers:  # trailers
            check_head_size(0, len(self._headers))

    def on_body(self, body: bytes) -> None:
        self._head_size = -self._read_size
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete:
            cycle.feed_body(body)

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        cycle, running = self._cycle, self._running
        if cycle is not None and not cycle.response_complete:
            cycle.end_body()
        is_running = running is not None and not running.response_complete
        self._state = ConnectionState.RESPONSE if is_running else ConnectionState.IDLE
        self._since = self._timeouts.now

    # -- responses --

    def _start(self, cycle: RequestResponseCycle) -> None:
        self._running = cycle
        self._task = self._loop.create_task(self._run(cycle))

    async def _run(self, cycle: RequestResponseCycle) -> None:
        task = self._task
        assert task is not None
        self._tasks.add(task)
        try:
            await self._app(cycle.scope, cycle.receive, cycle.send)
        except asyncio.CancelledError:
            if not cycle.disconnected:
                self._transport.close()
                raise
        except Exception:
            logger.exception("Sending a response failed")
            self._transport.close()
        else:
            if not cycle.response_complete and not cycle.disconnected:
                self._transport.close()
        finally:
            if not cycle.response_complete:
                cycle.release()
            self._tasks.discard(task)

    def _on_response_complete(self) -> None:
        self._server_state.total_requests += 1
        if self._transport.is_closing() or self._state is ConnectionState.CLOSING:
            return
        if self._flow.is_read_paused:
            self._flow.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        elif self._state is ConnectionState.RESPONSE:
            self._state, self._since = ConnectionState.IDLE, self._timeouts.now

    # `ResponseWriter`, for the cycle

    def close(self) -> None:
        """Close after the last response, which may precede the end of its request."""
        if self._state in (ConnectionState.HEAD, ConnectionState.BODY):
            self._linger()
        else:
            self._transport.close()

    def is_last_response(self) -> bool:
        return self._timeouts.is_draining and not self._pipeline

    # -- closing --

    def close_if_idle(self, since: float) -> None:
        """Close if idle since that time, unless the socket has unread bytes."""
        is_idle = self._state is ConnectionState.IDLE and self._since <= since
        if not is_idle or self._transport.is_closing():
            return
        if not is_readable(self._transport.get_extra_info("socket")):
            self._transport.close()

    def check_timeouts(self) -> None:
        """Close this connection if it has exceeded a time limit. Called periodically."""
        timeouts, state = self._timeouts, self._state
        self._flow.check_client_reads(timeouts.now, timeouts.read_timeout)
        if self._flow.is_read_paused:
            self._since = timeouts.now  # while this server does not read, no timeout of the client
        elif timeouts.is_expired(state, self._since):
            if state is ConnectionState.IDLE:
                self.close_if_idle(self._since)
            elif state is ConnectionState.CLOSING:
                self._transport.close()
            else:
                self._reject(time_exceeded("headers" if state is ConnectionState.HEAD else "body"))

    def _reject(self, error: RequestRejected) -> None:
        """Respond with an error to the request that is being read, and close the connection."""
        if self._transport.is_closing() or self._state is ConnectionState.CLOSING:
            return
        logger.debug("A connection is closed: %s", error.text)
        running, in_head = self._running, self._state is ConnectionState.HEAD
        if running is not None and not running.response_complete:
            if running is not self._cycle or in_head:
                # An earlier request gets its response; then the connection is closed.
                self._pipeline.clear()
                running.keep_alive = False
                self._state = ConnectionState.HEAD
                self._flow.pause_reading()
                return
            running.disconnected = True
            running.notify()
        in_body = running is not None and running is self._cycle and not in_head
        if running is not None and in_body and running.response_started:
            self._transport.close()
            return
        self._transport.write(encode_rejection(error))
        self._linger()

    def _linger(self) -> None:
        """Close for writing, later for reading: unread bytes would reset the connection."""
        self._state, self._since = ConnectionState.CLOSING, self._timeouts.now
        self._flow.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _decline_tunnel(self) -> None:
        """Respond to CONNECT over HTTP/1.1, then close: what follows is not HTTP."""
        if self._cycle is not None:
            self._cycle.keep_alive = False
        if self._running is None or self._running.response_complete:
            self._transport.close()
        else:
            self._state = ConnectionState.RESPONSE
            self._flow.pause_reading()

    def shutdown(self) -> None:
        """Close, after a response that is being sent. Called by `uvicorn.Server`."""
        cycle = self._cycle
        if self._state is ConnectionState.CLOSING or cycle is None or cycle.response_complete:
            self._transport.close()
        else:
            cycle.keep_alive = False
