"""One worker process as the server sees it: started, called, watched, ended."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..types import InferenceRequest
from .channel import Channel, open_channel
from .frames import Frame, FrameError, Kind, pack_request, unpack_error

logger = get_logger()


class WorkerDied(Exception):
    """The worker ended before it answered."""


class WorkerProcess:
    """A worker and the calls it has not answered.

    Args:
        command: Arguments that start a worker; the number of its end of the channel is appended.
        environment: Its whole environment.
        on_exit: Called once on the loop when the process is gone, however it went.
        on_metrics: Called with each observation that the worker's models log.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_exit: Callable[[WorkerProcess], None],
        on_metrics: Callable[[list[Any]], None],
    ) -> None:
        self._command = command
        self._environment = environment
        self._on_exit = on_exit
        self._on_metrics = on_metrics
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._streams: dict[int, asyncio.Queue[Frame | None]] = {}
        self._kill_at: dict[int, float] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._hello: asyncio.Future[None] | None = None
        self._pidfd: int | None = None
        self.loaded: set[str] = set()
        self.running = 0
        self.gone = False
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self, init: dict[str, Any], timeout: float) -> None:
        """Start the process and shake hands. Raises `WorkerDied` if it ends first, `TimeoutError` if it hangs."""
        loop = asyncio.get_running_loop()
        mine, theirs = socket.socketpair()
        self._hello = loop.create_future()
        with theirs:
            # Not in a helper thread: the kernel ends a worker when the *thread* that started it ends.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [*self._command, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
            )
        self._channel = await open_channel(mine, self._on_frame, self._on_closed)
        if hasattr(os, "pidfd_open"):
            # The channel alone does not tell: a child that the model forked may hold the worker's end open.
            self._pidfd = os.pidfd_open(self._process.pid)
            loop.add_reader(self._pidfd, self._on_closed, None)
        async with asyncio.timeout(timeout):
            await self._hello
            await self.call(Kind.INIT, init)

    # -- calls --

    async def call(self, kind: Kind, head: Any, buffers: Sequence[Any] = (), kill_after: float | None = None) -> Frame:
        """Send a frame and wait for its answer.

        Args:
            kill_after: Seconds after which a worker that neither answered nor reacts is to be ended (see `overdue`).

        Raises:
            MLServerError: what the worker answered.
            WorkerDied: it ended first.
        """
        if self.gone or self._channel is None:
            raise WorkerDied
        frame_id = next(self._ids)
        self._channel.send(Frame(kind, frame_id, head, buffers))  # first, for it raises if a value cannot be sent
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._pending[frame_id] = answer
        self.running += 1
        if kill_after is not None:
            self._kill_at[frame_id] = time.monotonic() + kill_after
        try:
            return await answer
        except asyncio.CancelledError:
            self._channel.send(Frame(Kind.CANCEL, frame_id, None))
            raise

    async def stream(self, key: str, requests: AsyncIterator[InferenceRequest]) -> AsyncIterator[Frame]:
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
            channel.send(Frame(Kind.STREAM, frame_id, {"key": key}))
            channel.send(Frame(Kind.PULL, frame_id, None))
            while True:
                frame = await frames.get()
                if frame is None:
                    raise WorkerDied
                if frame.kind == Kind.PULL:
                    feeding = asyncio.create_task(self._feed(channel, frame_id, requests))
                    continue
                if frame.kind in (Kind.END, Kind.ERROR):
                    ended = True
                    if frame.kind == Kind.ERROR:
                        raise unpack_error(frame.head)
                    return
                yield frame
                channel.send(Frame(Kind.PULL, frame_id, None))
        finally:
            if feeding is not None:
                feeding.cancel()
            del self._streams[frame_id]
            self.running -= 1
            if not ended:
                channel.send(Frame(Kind.CANCEL, frame_id, None))

    async def _feed(self, channel: Channel, frame_id: int, requests: AsyncIterator[InferenceRequest]) -> None:
        """Send the stream's next request, or its end; what goes wrong in reading it ends the stream."""
        try:
            request = await anext(requests, None)
        except MLServerError as problem:
            queue = self._streams.get(frame_id)
            if queue is not None:
                head = {
                    "message": problem.message,
                    "status": problem.status_code,
                    "code": problem.code,
                    "details": None,
                }
                queue.put_nowait(Frame(Kind.ERROR, frame_id, head))
            return
        if request is None:
            channel.send(Frame(Kind.END, frame_id, None))
            return
        buffers: list[Any] = []
        channel.send(Frame(Kind.ITEM, frame_id, pack_request(request, buffers), buffers))

    def overdue(self, now: float) -> bool:
        """Whether a call has outlived its `kill_after`."""
        return any(limit < now for limit in self._kill_at.values())

    # -- what comes from the worker --

    def _on_frame(self, frame: Frame) -> None:
        queue = self._streams.get(frame.id)
        if queue is not None:
            queue.put_nowait(frame)
            return
        if frame.kind == Kind.METRICS:
            self._on_metrics(frame.head)
            return
        if frame.kind == Kind.HELLO:
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(None)
            return
        answer = self._pending.pop(frame.id, None)
        if answer is None:
            return
        self.running -= 1
        self._kill_at.pop(frame.id, None)
        if answer.done():  # its caller left: a late answer is nobody's
            return
        if frame.kind == Kind.REPLY:
            answer.set_result(frame)
        else:
            answer.set_exception(unpack_error(frame.head))

    def _on_closed(self, reason: Exception | None) -> None:
        """The channel broke or the process ended: everybody who waits is told, once."""
        if self.gone:
            return
        self.gone = True
        if isinstance(reason, FrameError):
            logger.error("Worker %s sent bytes that are no frame; it is ended: %s", self.pid, reason)
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._channel is not None:
            self._channel.close()
        if not self._stopping:  # then it has its time to end by itself
            self.kill()
        for answer in [self._hello, *self._pending.values()]:
            if answer is not None and not answer.done():
                answer.set_exception(WorkerDied())
                answer.exception()  # whoever still waits raises it; nobody else need hear of it
        self._pending.clear()
        for queue in self._streams.values():
            queue.put_nowait(None)
        self._on_exit(self)

    # -- the end --

    def kill(self) -> None:
        """SIGKILL, at once. Ending is reported through `on_exit`."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def reap(self) -> int:
        """Wait for the process to be gone; its exit code (negative: the signal that ended it)."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait)

    async def retire(self, grace: float) -> None:
        """Answer what was asked, then end."""
        try:
            while self._pending:
                await asyncio.wait(list(self._pending.values()))
        finally:
            await self.stop(grace)

    async def stop(self, grace: float) -> None:
        """Close the channel, which ends a worker that is not busy; kill what is left after `grace` seconds."""
        if self._process is None:
            return
        self._stopping = True
        if self._channel is not None:
            self._channel.close()
        try:
            async with asyncio.timeout(grace):
                await self.reap()
        except TimeoutError:
            self.kill()
            await self.reap()
