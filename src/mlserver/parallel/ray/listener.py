"""The port of a replica: authenticates servers, and runs their requests on its model runner."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ...logging import get_logger
from ..rpc.dispatcher import RPCHandler
from ..rpc.protocol import Frame, MessageType
from ..worker.model_runner import ModelRunner
from ..worker.session import PeerSession
from .handshake import prove_replica
from .tcp import SILENCE_SECONDS, is_silent, set_tcp_options

logger = get_logger()

# Seconds over which a replica measures its utilization.
BUSY_WINDOW = 10.0
# Seconds after which a port that could not accept a connection accepts again.
ACCEPT_PAUSE = 0.5
# Seconds between two looks at the connections.
WATCH_INTERVAL = 0.5


class BusyClock:
    """Measures utilization: the share of time in which calls run.

    Args:
        slots: Calls that run at a time when the replica is fully busy.
        clock: Monotonic seconds.
    """

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._clock = clock
        self._running: dict[int, float] = {}
        self._ended: deque[tuple[float, float]] = deque()
        self._next = 0

    def start(self) -> int:
        """Record the start of a call; return its number, for `end`."""
        self._next += 1
        self._running[self._next] = self._clock()
        return self._next

    def end(self, number: int) -> None:
        now = self._clock()
        self._ended.append((self._running.pop(number), now))
        while self._ended and self._ended[0][1] < now - BUSY_WINDOW:
            self._ended.popleft()

    @property
    def running(self) -> int:
        return len(self._running)

    def get_oldest(self) -> float:
        """Return the seconds since the start of the oldest running call; 0 = none runs."""
        started = min(list(self._running.values()), default=None)
        return 0.0 if started is None else self._clock() - started

    def get_share(self) -> float:
        """Return the share of the last seconds, 0 to 1."""
        now = self._clock()
        begin = now - BUSY_WINDOW
        seconds = sum(end - max(start, begin) for start, end in list(self._ended) if end > begin)
        seconds += sum(now - max(start, begin) for start in list(self._running.values()))
        return min(1.0, seconds / BUSY_WINDOW / self._slots)


class ReplicaSession(PeerSession):
    """One server's session. Deadlines arrive as seconds left: clocks of two machines differ."""

    def __init__(
        self, runner: ModelRunner, busy: BusyClock, handlers: Mapping[int, RPCHandler]
    ) -> None:
        super().__init__(runner, handlers)
        self._busy = busy

    async def _infer(self, frame: Frame) -> Frame:
        if frame.head[1] is not None:
            frame.head[1] += time.monotonic()
        return await self._measure(super()._infer(frame))

    async def _stream(self, frame: Frame) -> Frame:
        return await self._measure(super()._stream(frame))

    async def _route(self, frame: Frame) -> Frame:
        return await self._measure(super()._route(frame))

    async def _measure(self, call: Any) -> Frame:
        number = self._busy.start()
        try:
            frame: Frame = await call
            return frame
        finally:
            self._busy.end(number)


class ReplicaListener:
    """Accepts servers until `close`.

    Args:
        runner: Holds the model.
        secret: Of the cluster's directory.
        describe: Returns the head of the answer to INIT.
        slots: See `BusyClock`.

    Attributes:
        busy: Measures the running calls.
    """

    def __init__(
        self, runner: ModelRunner, secret: bytes, describe: Callable[[], Any], slots: int
    ) -> None:
        self._runner = runner
        self._secret = secret
        self._describe = describe
        self._sessions: dict[ReplicaSession, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.busy = BusyClock(slots)

    async def open(self, host: str) -> tuple[str, int]:
        """Listen on a free port of an address; return both."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket))
        self._watching = asyncio.create_task(self._watch())
        return host, int(self._socket.getsockname()[1])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                end, _ = await loop.sock_accept(listener)
            except OSError as error:
                # EMFILE, for example: accept again once descriptors are free.
                logger.warning("The replica's port accepts no connection at present: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = loop.create_task(self._serve(end))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, end: socket.socket) -> None:
        set_tcp_options(end)
        try:
            await prove_replica(end, self._secret)
        except OSError as error:
            logger.warning("A connection to the replica's port was refused: %s", error)
            end.close()
            return
        handlers: dict[int, RPCHandler] = {
            MessageType.INIT: self._init,
            MessageType.UNLOAD: self._unload,
        }
        session = ReplicaSession(self._runner, self.busy, handlers)
        await session.open(end)
        self._sessions[session] = end
        try:
            await session.wait_closed()
        finally:
            del self._sessions[session]

    async def _watch(self) -> None:
        """End the sessions of servers whose host is silent."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            for session, end in self._sessions.items():
                if is_silent(end):
                    logger.warning(
                        "A server's host has acknowledged nothing for %s s: disconnected",
                        SILENCE_SECONDS,
                    )
                    session.abort()

    async def _init(self, frame: Frame) -> Frame:
        return Frame(MessageType.REPLY, frame.id, self._describe())

    async def _unload(self, frame: Frame) -> Frame:
        is_unloaded = await self._runner.unload(frame.head["key"])
        return Frame(MessageType.REPLY, frame.id, is_unloaded)

    def send_metric(self, sample: list[object]) -> None:
        """Send a metric of the model to one server: Prometheus adds up those of all servers."""
        for session in self._sessions:
            session.send(Frame(MessageType.METRICS, 0, sample))
            return

    async def leave(self, limit: float) -> None:
        """Drain: accept no new requests, and wait for running calls, at most `limit` seconds."""
        for session in self._sessions:
            session.send(Frame(MessageType.LEAVING, 0, None))
        if self._accepting is not None:
            self._accepting.cancel()
        if self._socket is not None:
            self._socket.close()
        end = time.monotonic() + limit
        # Requests that were sent before the servers read LEAVING may still arrive.
        await asyncio.sleep(min(0.2, limit))
        while self.busy.running and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if self._watching is not None:
            self._watching.cancel()
