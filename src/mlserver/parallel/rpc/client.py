"""RPC client for one connection: unary calls, streams, and notifications from the peer."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ...errors import MLServerError
from ...types import InferenceRequest
from .connection import FramedConnection, open_connection
from .protocol import Frame, MessageType, pack_error, pack_request, unpack_error


class WorkerDied(Exception):
    """The process at the other end was gone before it answered."""


class RPCClient:
    """A connection to another process, and the calls that it has not answered.

    Args:
        on_notification: Called with each frame that answers no call.

    Attributes:
        model_keys: Keys of the models that a worker at the other end holds; maintained by the
            client's owner.
        in_flight: Number of calls and streams without an answer.
        is_gone: Whether the peer has ended or the connection is closed; never reset.
    """

    def __init__(self, on_notification: Callable[[Frame], object]) -> None:
        self._on_notification = on_notification
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._streams: dict[int, asyncio.Queue[Frame | None]] = {}
        self._kill_at: dict[int, float] = {}
        # Set at each end of a call or stream.
        self._ended = asyncio.Event()
        self._connection: FramedConnection | None = None
        self.model_keys: set[str] = set()
        self.in_flight = 0
        self.is_gone = False

    async def open(self, end: socket.socket) -> None:
        """Connect over one end of a connected socket pair."""
        self._connection = await open_connection(end, self._on_frame, self._on_closed)

    def send(self, frame: Frame) -> None:
        """Send a notification or an answer; dropped if the peer is gone."""
        if self._connection is not None:
            self._connection.send(frame)

    @property
    def is_backed_up(self) -> bool:
        """Whether the peer does not read what was sent; see `FramedConnection`."""
        return self._connection is not None and self._connection.is_backed_up

    async def wait_writable(self) -> None:
        """Return when the peer reads, or is gone."""
        if self._connection is not None:
            await self._connection.wait_writable()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def abort(self) -> None:
        """Close without waiting for the peer to read what was sent; calls end with `WorkerDied`."""
        if self._connection is not None:
            self._connection.abort()

    # -- calls --

    async def call(
        self,
        kind: MessageType,
        head: Any,
        buffers: Sequence[Any] = (),
        kill_after: float | None = None,
    ) -> Frame:
        """Send a frame and return the answer.

        Args:
            kill_after: Seconds after which `has_overdue_call` reports this call.

        Raises:
            MLServerError: the peer's answer is an error, or the head cannot be serialized.
            WorkerDied: the peer ended first.
        """
        if self.is_gone or self._connection is None:
            raise WorkerDied
        frame_id = next(self._ids)
        # Before the call is registered, because sending raises if a value cannot be serialized.
        self._connection.send(Frame(kind, frame_id, head, buffers))
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._pending[frame_id] = answer
        self.in_flight += 1
        if kill_after is not None:
            self._kill_at[frame_id] = time.monotonic() + kill_after
        try:
            return await answer
        except asyncio.CancelledError:
            self._connection.send(Frame(MessageType.CANCEL, frame_id, None))
            raise

    async def stream(
        self,
        head: dict[str, Any],
        requests: AsyncIterator[InferenceRequest],
        kill_after: float | None = None,
    ) -> AsyncIterator[Frame]:
        """Open a stream: the model pulls the requests, the caller pulls the responses.

        Args:
            head: Key of the model, and trace context.
            kill_after: Seconds after the caller has left, after which `has_overdue_call` reports
                this stream if the peer has not ended it.

        Raises:
            MLServerError: the model or the reader of the requests failed.
            WorkerDied: the peer ended first.
        """
        if self.is_gone or self._connection is None:
            raise WorkerDied
        connection, frame_id = self._connection, next(self._ids)
        frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._streams[frame_id] = frames
        self.in_flight += 1
        sender: asyncio.Task[None] | None = None
        has_ended = False
        try:
            connection.send(Frame(MessageType.STREAM, frame_id, head))
            connection.send(Frame(MessageType.PULL, frame_id, None))
            while True:
                frame = await frames.get()
                if frame is None:
                    raise WorkerDied
                if frame.kind == MessageType.PULL:
                    sender = asyncio.create_task(self._send_next(connection, frame_id, requests))
                    continue
                if frame.kind in (MessageType.END, MessageType.ERROR):
                    has_ended = True
                    if frame.kind == MessageType.ERROR:
                        raise unpack_error(frame.head)
                    return
                yield frame
                connection.send(Frame(MessageType.PULL, frame_id, None))
        finally:
            if sender is not None:
                sender.cancel()
            del self._streams[frame_id]
            self._ended.set()
            self.in_flight -= 1
            if not has_ended:
                connection.send(Frame(MessageType.CANCEL, frame_id, None))
                if kill_after is not None:
                    self._kill_at[frame_id] = time.monotonic() + kill_after

    async def _send_next(
        self, connection: FramedConnection, frame_id: int, requests: AsyncIterator[InferenceRequest]
    ) -> None:
        """Send the stream's next request or its end; an error of the reader ends the stream."""
        try:
            request = await anext(requests, None)
        except MLServerError as error:
            queue = self._streams.get(frame_id)
            if queue is not None:
                queue.put_nowait(Frame(MessageType.ERROR, frame_id, pack_error(error)))
            return
        if request is None:
            connection.send(Frame(MessageType.END, frame_id, None))
            return
        await connection.wait_writable()
        buffers: list[Any] = []
        connection.send(Frame(MessageType.ITEM, frame_id, pack_request(request, buffers), buffers))

    def has_overdue_call(self, now: float) -> bool:
        """Whether a call has exceeded its `kill_after`."""
        return any(limit < now for limit in self._kill_at.values())

    async def wait_idle(self) -> None:
        """Return when every call has its answer and every stream its end, or the peer is gone."""
        while self._pending or self._streams:
            self._ended.clear()
            await self._ended.wait()

    # -- frames of the peer --

    def _on_frame(self, frame: Frame) -> None:
        queue = self._streams.get(frame.id)
        if queue is not None:
            queue.put_nowait(frame)
            return
        kind = frame.kind
        if kind != MessageType.REPLY and kind != MessageType.ERROR:
            if kind == MessageType.END:  # of a stream whose caller has left
                self._kill_at.pop(frame.id, None)
            self._on_other_frame(frame)
            return
        self._kill_at.pop(frame.id, None)
        answer = self._pending.pop(frame.id, None)
        if answer is None:
            return
        self._ended.set()
        self.in_flight -= 1
        if answer.done():  # the caller was cancelled
            return
        if kind == MessageType.REPLY:
            answer.set_result(frame)
        else:
            answer.set_exception(unpack_error(frame.head))

    def _on_other_frame(self, frame: Frame) -> None:
        """Called with each frame that answers no call."""
        self._on_notification(frame)

    def _on_closed(self, reason: Exception | None) -> None:
        """Fail all calls and streams. Called once."""
        self.is_gone = True
        self.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(WorkerDied())
                answer.exception()  # marks it as retrieved: a cancelled caller raises no warning
        self._pending.clear()
        self._ended.set()
        for queue in self._streams.values():
            queue.put_nowait(None)
