"""What a worker does for one process that asks it to run models: requests, streams and the models' own routes."""

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
from ..rpc.connection import FramedConnection, open_channel
from ..rpc.dispatcher import RPCDispatcher, RPCHandler
from ..rpc.protocol import Frame, MessageType, pack_response, unpack_request
from ..stream_timer import StreamTimer
from .model_runner import ModelRunner


class StreamInput:
    """The requests of one stream, pulled from the server one at a time, so that neither end piles them up."""

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
    """An open stream: the requests that came, and the right to send a response for each that the server asked for."""

    inbox: StreamInput
    wanted: asyncio.Semaphore


class PeerSession:
    """One channel's calls. One task per request; every answer carries the nanoseconds that the model took for it.

    Args:
        runner: Has the models; several services may share it.
        actions: Further kinds of calls that this channel may make.

    Attributes:
        traced: Whether spans of the models' own code join their requests' traces.
    """

    def __init__(
        self, runner: ModelRunner, actions: Mapping[int, RPCHandler] | None = None
    ) -> None:
        self._runner = runner
        self.traced = False
        own: dict[int, RPCHandler] = {
            MessageType.INFER: self._infer,
            MessageType.STREAM: self._stream,
            MessageType.ROUTE: self._route,
            MessageType.METADATA: self._metadata,
        }
        self._dispatcher = RPCDispatcher({**own, **(actions or {})}, self.send)
        self._streams: dict[int, OpenStream] = {}
        self._channel: FramedConnection | None = None
        self._closed = asyncio.Event()

    async def open(self, end: socket.socket) -> None:
        """Begin, over one end of a connected socket pair."""
        self._channel = await open_channel(end, self._on_frame, self._on_closed)

    async def closed(self) -> None:
        """Return when the other end has closed the channel."""
        await self._closed.wait()

    def send(self, frame: Frame) -> None:
        assert self._channel is not None
        try:
            self._channel.send(frame)
        except MLServerError as error:  # what the model answered is no plain data: its fault
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
        if self._dispatcher.take(frame) or frame.id not in self._streams:
            return
        stream = self._streams[frame.id]
        if frame.kind == MessageType.PULL:
            stream.wanted.release()
        else:
            stream.inbox.put(
                unpack_request(frame.head, frame.buffers)
                if frame.kind == MessageType.ITEM
                else None
            )

    # -- one method per kind of call --

    async def _infer(self, frame: Frame) -> Frame:
        key, deadline, rows_per_request, trace_parent, values = frame.head
        call = RequestContext(deadline=deadline, rows_per_request=rows_per_request)
        if self.traced:
            call.trace_parent = trace_parent
        request = unpack_request(values, frame.buffers)
        started = time.perf_counter_ns()
        response = await self._runner.infer(key, request, call)
        elapsed = time.perf_counter_ns() - started
        buffers: list[Any] = []
        return Frame(
            MessageType.REPLY, frame.id, [elapsed, pack_response(response, buffers)], buffers
        )

    def _open_stream(self, frame_id: int) -> None:
        """At once, not when the stream's task first runs: the frames that follow may have come with this one."""
        inbox = StreamInput(lambda: self.send(Frame(MessageType.PULL, frame_id, None)))
        self._streams[frame_id] = OpenStream(inbox, asyncio.Semaphore(0))

    async def _stream(self, frame: Frame) -> Frame:
        stream = self._streams[frame.id]
        try:
            clock = StreamTimer()
            responses = self._runner.stream(frame.head["key"], clock.asking(aiter(stream.inbox)))
            while True:
                response, elapsed = await clock.next(responses)
                if response is None:
                    return Frame(MessageType.END, frame.id, None)
                await stream.wanted.acquire()
                buffers: list[Any] = []
                self.send(
                    Frame(
                        MessageType.ITEM,
                        frame.id,
                        [elapsed, pack_response(response, buffers)],
                        buffers,
                    )
                )
        finally:
            self._streams.pop(frame.id, None)

    async def _metadata(self, frame: Frame) -> Frame:
        metadata = await self._runner.metadata(frame.head)
        return Frame(MessageType.REPLY, frame.id, metadata.model_dump())

    async def _route(self, frame: Frame) -> Frame:
        key, method, path, query, headers = frame.head
        body = bytes(frame.buffers[0]) if frame.buffers else b""
        request = HTTPRequest(method, path, query, [(name, value) for name, value in headers], body)
        response = await self._runner.route(key, request)
        return Frame(
            MessageType.REPLY, frame.id, [response.status, response.headers], [response.body]
        )
