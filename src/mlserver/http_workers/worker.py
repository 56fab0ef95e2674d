"""A further front end process: the road of every model again, with the server's workers at its end.

Started by the server as `python -m mlserver.http_workers.worker FD`. It loads nothing: what it knows comes in tables, and what
callers ask of the repository it asks of the server. It ends with the server, like a worker.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from ..assembly import PipelineFactory
from ..errors import Unavailable
from ..handlers import DataPlane
from ..logging import configure_logger
from ..metrics.model_statistics import ModelStatistics
from ..parallel.child_main import extend_sys_path, run_child
from ..parallel.rpc.client import RPCClient, WorkerDied
from ..parallel.rpc.dispatcher import RPCDispatcher, RPCHandler
from ..parallel.rpc.fd_passing import control_socket_from_fd
from ..parallel.rpc.protocol import Frame, MessageType
from ..registry import ModelVersion
from ..settings import Settings
from ..types import RepositoryIndexRequest, RepositoryIndexResponse
from . import snapshot
from .replica import ReplicaRegistry, WorkerConnections

WATCH_INTERVAL = 0.5
GC_THRESHOLD = 20_000, 20, 20  # as in the server's own process


class SupervisorClient(RPCClient):
    """The line to the server's own process, which asks and is asked."""

    def __init__(self, actions: dict[int, RPCHandler]) -> None:
        self._dispatcher = RPCDispatcher(actions, self.send)
        super().__init__(self._dispatcher.dispatch)
        self._closed = asyncio.Event()

    async def wait_closed(self) -> None:
        """Return when the server has closed the line, or is gone."""
        await self._closed.wait()

    async def ask(self, kind: MessageType, head: Any) -> Any:
        """Raises `MLServerError`: what the server answered."""
        try:
            return (await self.call(kind, head)).head
        except WorkerDied:
            raise Unavailable("The server is stopping") from None

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self._closed.set()


class RemoteRepository:
    """The repository, as the server has it."""

    def __init__(self, control: SupervisorClient) -> None:
        self._control = control

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        items = await self._control.ask(MessageType.REPOSITORY, ["index", payload.ready])
        return RepositoryIndexResponse.model_validate(items)

    async def load(self, name: str) -> bool:
        return bool(await self._control.ask(MessageType.REPOSITORY, ["load", name]))

    async def unload(self, name: str) -> bool:
        return bool(await self._control.ask(MessageType.REPOSITORY, ["unload", name]))


class HTTPWorker:
    """One such process, from its first frame to its last."""

    def __init__(self) -> None:
        self._control = SupervisorClient(
            {
                MessageType.INIT: self._init,
                MessageType.STATE: self._take_table,
                MessageType.START_SERVING: self._open,
                MessageType.WAIT_RELEASED: self._leave,
                MessageType.LAST_ANSWERS: self._end_connections,
                MessageType.DRAIN: self._drain,
                MessageType.COLLECT_STATS: self._count,
                MessageType.STOP_SERVING: self._close,
            }
        )
        self._front_ends: list[Any] = []
        self._watch: asyncio.Task[None] | None = None

    async def serve(self, end: socket.socket) -> None:
        """Work until the server closes the line."""
        await self._control.open(end)
        self._control.send(Frame(MessageType.READY, 0, {"pid": os.getpid()}))
        await self._control.wait_closed()

    # -- what the server asks --

    async def _init(self, frame: Frame) -> Frame:
        self._settings = settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        extend_sys_path(frame.head["sys_path"])
        self._factory = PipelineFactory(settings)
        self._workers = WorkerConnections(
            control_socket_from_fd(frame.head["control_fd"]), frame.head["number"], self._lost
        )
        self._mirror = ReplicaRegistry(
            self._workers, self._factory.build_pipeline, self._factory.metrics
        )
        self._data_plane = DataPlane(settings, self._mirror, self._gather)
        self._watch = asyncio.create_task(self._look_for_stuck_workers())
        return _done(frame)

    async def _take_table(self, frame: Frame) -> Frame:
        told = snapshot.read(frame.head)
        await self._workers.update(told.workers)
        self._mirror.update(told)
        self._data_plane.accepting = told.accepting
        return _done(frame)

    async def _open(self, frame: Frame) -> Frame:
        page = self._metrics_page if self._settings.metrics_endpoint else None
        parts = self._settings, self._data_plane, RemoteRepository(self._control), page
        self._front_ends = self._factory.build_front_ends(*parts)
        for front_end in self._front_ends:
            await front_end.start()
        gc.freeze()
        return _done(frame)

    async def _leave(self, frame: Frame) -> Frame:
        what, which = frame.head
        await (self._mirror.left(which) if what == "model" else self._workers.left(which))
        return _done(frame)

    async def _end_connections(self, frame: Frame) -> Frame:
        for front_end in self._front_ends:
            front_end.end_connections()
        return _done(frame)

    async def _drain(self, frame: Frame) -> Frame:
        await asyncio.gather(*(front_end.drain() for front_end in self._front_ends))
        await self._mirror.drained()
        return _done(frame)

    async def _count(self, frame: Frame) -> Frame:
        statistics = [
            [serial, entry.statistics.to_frame()]
            for serial, entry in self._mirror.by_serial().items()
        ]
        return _done(frame, {"metrics": self._factory.metrics.export(), "statistics": statistics})

    async def _close(self, frame: Frame) -> Frame:
        await asyncio.gather(*(front_end.stop(frame.head) for front_end in self._front_ends))
        await self._factory.close()
        return _done(frame)

    # -- what it asks and tells --

    async def _gather(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        sums = await self._control.ask(MessageType.STATISTICS, [entry.serial for entry in entries])
        return [ModelStatistics.from_frame(values) for values in sums]

    async def _metrics_page(self, accept: str) -> tuple[str, bytes]:
        content_type, text = await self._control.ask(MessageType.METRICS_PAGE, accept)
        return content_type, text

    def _lost(self, number: int) -> None:
        self._control.send(Frame(MessageType.WORKER_LOST, 0, number))

    async def _look_for_stuck_workers(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            for number in self._workers.overdue(time.monotonic()):
                self._control.send(Frame(MessageType.REPORT_STUCK, 0, number))


def _done(frame: Frame, head: Any = None) -> Frame:
    return Frame(MessageType.REPLY, frame.id, head)


async def _serve(end: socket.socket) -> None:
    await HTTPWorker().serve(end)


if __name__ == "__main__":
    gc.set_threshold(*GC_THRESHOLD)
    run_child(_serve)
