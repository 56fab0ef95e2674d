"""One peer's session in a worker: requests, streams and custom routes of one connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from ...errors import MLServerError, ModelFailed
from ...pipeline import RequestContext
from ...types import InferenceRequest
from ..executor import HTTPRequest
from ..rpc.connection import FramedConnection, open_connection
from ..rpc.dispatcher import RPCDispatcher, RPCHandler
from ..rpc.protocol import Frame, MessageType, pack_response, unpack_request
from ..stream_timer import StreamTimer
from .model_runner import ModelRunner


class StreamInput:
    """The requests of one stream, pulled one at a time, so that no process queues them."""

    def __init__(self, pull: Callable[[], None]) -> None:
        self._pull = pull
        self._items: asyncio.Queue[InferenceRequest | None] = asyncio.Queue()

    def put(self, item: InferenceRequest | None) -> None:
        self._items.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[InferenceRequest]:
        while True:
            self._pull()
            item = await self._items.get()
            if item is None:
                return
            yield item


class OpenStream(NamedTuple):
    """An open stream.

    Attributes:
        input: The requests that have arrived.
        pulled: One permit for each response that the peer has pulled and that was not sent yet.
    """

    input: StreamInput
    pulled: asyncio.Semaphore


class PeerSession:
    """Runs the calls of one peer, one task per call; answers contain the model's nanoseconds.

    Args:
        runner: Holds the models; sessions share it.
        handlers: Handlers of additional kinds of calls for this peer.
    """

    def __init__(
        self, runner: ModelRunner, handlers: Mapping[int, RPCHandler] | None = None
    ) -> None:
        self._runner = runner
        session_handlers: dict[int, RPCHandler] = {
            MessageType.INFER: self._infer,
            MessageType.STREAM: self._stream,
            MessageType.ROUTE: self._route,
            MessageType.METADATA: self._metadata,
            MessageType.RESOLVE_SOURCE: self._resolve_source,
        }
        self._dispatcher = RPCDispatcher({**session_handlers, **(handlers or {})}, self.send)
        self._streams: dict[int, OpenStream] = {}
        self._connection: FramedConnection | None = None
        self._closed = asyncio.Event()

    async def open(self, end: socket.socket) -> None:
        """Start to serve one end of a connected socket pair."""
        self._connection = await open_connection(end, self._on_frame, self._on_closed)

    async def wait_closed(self) -> None:
        """Return when the peer has closed the connection."""
        await self._closed.wait()

    def abort(self) -> None:
        """End the session at once: the peer may never read what was sent."""
        if self._connection is not None:
            self._connection.abort()

    def send(self, frame: Frame) -> None:
        """Send a frame. Raises `ModelFailed` if the model's answer cannot be serialized."""
        assert self._connection is not None
        try:
            self._connection.send(frame)
        except MLServerError as error:
            reason = error.message.partition(": ")[2] or error.message
            raise ModelFailed(f"The model's answer cannot be sent: {reason}") from None

    def _on_closed(self, reason: Exception | None) -> None:
        self._dispatcher.close()
        self._closed.set()

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind == MessageType.STREAM:
            self._open_stream(frame.id)
        elif frame.kind == MessageType.CANCEL:
            self._streams.pop(frame.id, None)
        if self._dispatcher.dispatch(frame) or frame.id not in self._streams:
            return
        stream = self._streams[frame.id]
        if frame.kind == MessageType.PULL:
            stream.pulled.release()
        elif frame.kind == MessageType.ITEM:
            stream.input.put(unpack_request(frame.head, frame.buffers))
        else:
            stream.input.put(None)

    # -- one handler per kind of call --

    async def _infer(self, frame: Frame) -> Frame:
        key, deadline, rows_per_request, trace_parent, joined_ids, values = frame.head
        context = RequestContext(
            deadline=deadline,
            trace_parent=trace_parent,
            rows_per_request=rows_per_request,
            joined_ids=joined_ids,
        )
        request = unpack_request(values, frame.buffers)
        started = time.perf_counter_ns()
        response = await self._runner.infer(key, request, context)
        elapsed = time.perf_counter_ns() - started
        buffers: list[Any] = []
        head = [elapsed, pack_response(response, buffers)]
        return Frame(MessageType.REPLY, frame.id, head, buffers)

    def _open_stream(self, frame_id: int) -> None:
        """Register the stream before its task runs: its next frames may have arrived already."""
        stream_input = StreamInput(lambda: self.send(Frame(MessageType.PULL, frame_id, None)))
        self._streams[frame_id] = OpenStream(stream_input, asyncio.Semaphore(0))

    async def _stream(self, frame: Frame) -> Frame:
        stream = self._streams[frame.id]
        timer = StreamTimer()
        try:
            requests = timer.exclude_wait(aiter(stream.input))
            context = RequestContext(trace_parent=frame.head["trace_parent"])
            responses = self._runner.stream(frame.head["key"], requests, context)
            while True:
                response, elapsed = await timer.next(responses)
                if response is None:
                    return Frame(MessageType.END, frame.id, None)
                await stream.pulled.acquire()
                buffers: list[Any] = []
                head = [elapsed, pack_response(response, buffers)]
                self.send(Frame(MessageType.ITEM, frame.id, head, buffers))
        finally:
            self._streams.pop(frame.id, None)

    async def _metadata(self, frame: Frame) -> Frame:
        metadata = await self._runner.metadata(frame.head)
        return Frame(MessageType.REPLY, frame.id, metadata.model_dump())

    async def _resolve_source(self, frame: Frame) -> Frame:
        key, uri = frame.head
        return Frame(MessageType.REPLY, frame.id, await self._runner.resolve_source(key, uri))

    async def _route(self, frame: Frame) -> Frame:
        key, method, path, query, headers = frame.head
        body = bytes(frame.buffers[0]) if frame.buffers else b""
        request = HTTPRequest(method, path, query, [(name, value) for name, value in headers], body)
        response = await self._runner.route(key, request)
        head = [response.status, response.headers]
        return Frame(MessageType.REPLY, frame.id, head, [response.body])
