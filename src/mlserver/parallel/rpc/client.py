"""RPC client for one connection: unary calls, streams, and notifications from the peer."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ...types import InferenceRequest
from .connection import FramedConnection, open_connection
from .protocol import Frame, MessageType, pack_request, unpack_error


class WorkerDied(Exception):
    """The process at the other end was gone before it answered."""


class _ResponseLimit:
    """Limits the time for which the peer owes the caller of a stream a response.

    Args:
        kill_at: Receives the end of that time while it runs.
        frame_id: Key in `kill_at`.
        seconds: None = no limit.
    """

    def __init__(self, kill_at: dict[int, float], frame_id: int, seconds: float | None) -> None:
        self._kill_at = kill_at
        self._frame_id = frame_id
        self._seconds = seconds
        self._is_pulled = self._is_reading = False

    def set_pulled(self, is_pulled: bool) -> None:
        """Whether the caller waits for a response."""
        self._is_pulled = is_pulled
        self._restart()

    def set_reading(self, is_reading: bool) -> None:
        """Whether the peer waits for a request of the client."""
        self._is_reading = is_reading
        self._restart()

    def _restart(self) -> None:
        if self._seconds is None or self._is_reading or not self._is_pulled:
            self._kill_at.pop(self._frame_id, None)
        else:
            self._kill_at[self._frame_id] = time.monotonic() + self._seconds


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
        self._streams: dict[int, asyncio.Queue[Frame | Exception | None]] = {}
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
            self._ended.set()
            raise

    async def stream(
        self,
        head: dict[str, Any],
        requests: AsyncIterator[InferenceRequest],
        kill_after: float | None = None,
    ) -> AsyncIterator[Frame]:
        """Open a stream: the model pulls the requests, the caller pulls the responses.

        What `requests` raises ends the stream, and is raised.

        Args:
            head: Key of the model, and trace context.
            kill_after: Seconds that the peer has for each response, without those in which it waits
                for a request, and to end the stream when the caller has left; then
                `has_overdue_call` reports the stream.

        Raises:
            MLServerError: the model failed, or a request cannot be serialized.
            WorkerDied: the peer ended first.
        """
        if self.is_gone or self._connection is None:
            raise WorkerDied
        connection, frame_id = self._connection, next(self._ids)
        frames: asyncio.Queue[Frame | Exception | None] = asyncio.Queue()
        limit = _ResponseLimit(self._kill_at, frame_id, kill_after)
        self._streams[frame_id] = frames
        self.in_flight += 1
        sender: asyncio.Task[None] | None = None
        has_ended = False
        try:
            connection.send(Frame(MessageType.STREAM, frame_id, head))
            connection.send(Frame(MessageType.PULL, frame_id, None))
            limit.set_pulled(True)
            while True:
                frame = await frames.get()
                if frame is None:
                    raise WorkerDied
                if isinstance(frame, Exception):
                    raise frame
                if frame.kind == MessageType.PULL:
                    limit.set_reading(True)
                    sender = asyncio.create_task(self._send_next(frame_id, requests, limit))
                    continue
                if frame.kind in (MessageType.END, MessageType.ERROR):
                    has_ended = True
                    if frame.kind == MessageType.ERROR:
                        raise unpack_error(frame.head)
                    return
                limit.set_pulled(False)
                yield frame
                connection.send(Frame(MessageType.PULL, frame_id, None))
                limit.set_pulled(True)
        finally:
            if sender is not None:
                sender.cancel()
            del self._streams[frame_id]
            self._ended.set()
            self.in_flight -= 1
            if has_ended:
                self._kill_at.pop(frame_id, None)
            else:
                connection.send(Frame(MessageType.CANCEL, frame_id, None))
                if kill_after is not None:
                    self._kill_at.setdefault(frame_id, time.monotonic() + kill_after)

    async def _send_next(
        self, frame_id: int, requests: AsyncIterator[InferenceRequest], limit: _ResponseLimit
    ) -> None:
        """Send the stream's next request or its end; any exception ends the stream."""
        try:
            request = await anext(requests, None)
            limit.set_reading(False)
            if request is None:
                self.send(Frame(MessageType.END, frame_id, None))
                return
            await self.wait_writable()
            buffers: list[Any] = []
            self.send(Frame(MessageType.ITEM, frame_id, pack_request(request, buffers), buffers))
        except Exception as error:
            if (frames := self._streams.get(frame_id)) is not None:
                frames.put_nowait(error)

    def has_overdue_call(self, now: float) -> bool:
        """Whether a call or stream has exceeded its `kill_after`."""
        return any(limit < now for limit in self._kill_at.values())

    async def is_reacting(self, timeout: float) -> bool:
        """Send a ping; return whether the peer answers within `timeout` seconds.

        If it does, it has read the cancellation of every call that was cancelled before: these are
        not overdue any more, also if their functions still run in threads.

        Raises:
            WorkerDied: the peer ended first.
        """
        left = [frame_id for frame_id in self._kill_at if self._has_no_caller(frame_id)]
        try:
            async with asyncio.timeout(timeout):
                await self.call(MessageType.PING, None)
        except TimeoutError:
            return False
        for frame_id in left:
            self._kill_at.pop(frame_id, None)
        return True

    def _has_no_caller(self, frame_id: int) -> bool:
        answer = self._pending.get(frame_id)
        return frame_id not in self._streams if answer is None else answer.done()

    async def wait_idle(self) -> None:
        """Return when no caller waits for an answer or reads a stream, or the peer is gone."""
        while self._streams or not all(answer.done() for answer in self._pending.values()):
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
