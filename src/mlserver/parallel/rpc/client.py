"""The asking end of a channel: calls and streams to a worker, and what the other end tells without being asked."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ...errors import MLServerError
from ...types import InferenceRequest
from .connection import FramedConnection, open_channel
from .protocol import Frame, MessageType, pack_error, pack_request, unpack_error


class WorkerDied(Exception):
    """The process at the other end was gone before it answered."""


class RPCClient:
    """A channel to another process, and the calls that it has not answered.

    Args:
        on_notification: Called with each frame that is no answer.

    Attributes:
        loaded: Keys of the models that a worker at the other end holds; kept by the owner of the line.
        running: Calls and streams without an answer.
        gone: Whether the other end is; then it stays so.
    """

    def __init__(self, on_notification: Callable[[Frame], object]) -> None:
        self._on_notification = on_notification
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._streams: dict[int, asyncio.Queue[Frame | None]] = {}
        self._kill_at: dict[int, float] = {}
        self._channel: FramedConnection | None = None
        self.loaded: set[str] = set()
        self.running = 0
        self.gone = False

    async def open(self, end: socket.socket) -> None:
        """Begin, over one end of a connected socket pair."""
        self._channel = await open_channel(end, self._on_frame, self._on_closed)

    def send(self, frame: Frame) -> None:
        """Tell the other end something, or answer it; dropped if it is gone."""
        if self._channel is not None:
            self._channel.send(frame)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    # -- calls --

    async def call(
        self,
        kind: MessageType,
        head: Any,
        buffers: Sequence[Any] = (),
        kill_after: float | None = None,
    ) -> Frame:
        """Send a frame and wait for its answer.

        Args:
            kill_after: Seconds after which a worker that neither answered nor reacts is to be ended (see `overdue`).

        Raises:
            MLServerError: what the other end answered.
            WorkerDied: it ended first.
        """
        if self.gone or self._channel is None:
            raise WorkerDied
        frame_id = next(self._ids)
        self._channel.send(
            Frame(kind, frame_id, head, buffers)
        )  # first, for it raises if a value cannot be sent
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._pending[frame_id] = answer
        self.running += 1
        if kill_after is not None:
            self._kill_at[frame_id] = time.monotonic() + kill_after
        try:
            return await answer
        except asyncio.CancelledError:
            self._channel.send(Frame(MessageType.CANCEL, frame_id, None))
            raise

    async def stream(
        self, key: str, requests: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[Frame]:
        """Open a stream: requests are sent as the model pulls them, its answers come as the caller pulls them."""
        if self.gone or self._channel is None:
            raise WorkerDied
        channel, frame_id = self._channel, next(self._ids)
        frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._streams[frame_id] = frames
        self.running += 1
        feeding: asyncio.Task[None] | None = None
        ended = False
        try:
            channel.send(Frame(MessageType.STREAM, frame_id, {"key": key}))
            channel.send(Frame(MessageType.PULL, frame_id, None))
            while True:
                frame = await frames.get()
                if frame is None:
                    raise WorkerDied
                if frame.kind == MessageType.PULL:
                    feeding = asyncio.create_task(self._feed(channel, frame_id, requests))
                    continue
                if frame.kind in (MessageType.END, MessageType.ERROR):
                    ended = True
                    if frame.kind == MessageType.ERROR:
                        raise unpack_error(frame.head)
                    return
                yield frame
                channel.send(Frame(MessageType.PULL, frame_id, None))
        finally:
            if feeding is not None:
                feeding.cancel()
            del self._streams[frame_id]
            self.running -= 1
            if not ended:
                channel.send(Frame(MessageType.CANCEL, frame_id, None))

    async def _feed(
        self, channel: FramedConnection, frame_id: int, requests: AsyncIterator[InferenceRequest]
    ) -> None:
        """Send the stream's next request, or its end; what goes wrong in reading it ends the stream."""
        try:
            request = await anext(requests, None)
        except MLServerError as error:
            queue = self._streams.get(frame_id)
            if queue is not None:
                queue.put_nowait(Frame(MessageType.ERROR, frame_id, pack_error(error)))
            return
        if request is None:
            channel.send(Frame(MessageType.END, frame_id, None))
            return
        buffers: list[Any] = []
        channel.send(Frame(MessageType.ITEM, frame_id, pack_request(request, buffers), buffers))

    def overdue(self, now: float) -> bool:
        """Whether a call has outlived its `kill_after`."""
        return any(limit < now for limit in self._kill_at.values())

    async def wait_idle(self) -> None:
        """Return when every call has its answer."""
        while self._pending:
            await asyncio.wait(list(self._pending.values()))

    # -- what comes from the other end --

    def _on_frame(self, frame: Frame) -> None:
        queue = self._streams.get(frame.id)
        if queue is not None:
            queue.put_nowait(frame)
            return
        kind = frame.kind
        if kind != MessageType.REPLY and kind != MessageType.ERROR:
            self._on_notification(frame)
            return
        answer = self._pending.pop(frame.id, None)
        if answer is None:
            return
        self.running -= 1
        self._kill_at.pop(frame.id, None)
        if answer.done():  # its caller left: a late answer is nobody's
            return
        if kind == MessageType.REPLY:
            answer.set_result(frame)
        else:
            answer.set_exception(unpack_error(frame.head))

    def _on_closed(self, reason: Exception | None) -> None:
        """Everybody who waits is told, once."""
        self.gone = True
        self.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(WorkerDied())
                answer.exception()  # whoever still waits raises it; nobody else need hear of it
        self._pending.clear()
        for queue in self._streams.values():
            queue.put_nowait(None)
