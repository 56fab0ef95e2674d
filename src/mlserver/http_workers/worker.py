"""Main program of an HTTP worker process: front ends and pipelines over the server's model workers.

The server starts it as `python -m mlserver.http_workers.worker FD`. It loads no model: snapshots of
the server's state arrive over the connection, and repository calls are forwarded to the server. It
ends with the server, like a model worker.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
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
PING_TIMEOUT = 1.0
GC_THRESHOLD = 20_000, 20, 20  # as in the server's own process


class SupervisorClient(RPCClient):
    """The connection to the supervisor in the server's process; both ends make calls."""

    def __init__(self, handlers: dict[int, RPCHandler]) -> None:
        self._dispatcher = RPCDispatcher(handlers, self.send)
        super().__init__(self._dispatcher.dispatch)
        self._closed = asyncio.Event()

    async def wait_closed(self) -> None:
        """Return when the server has closed the connection or has ended."""
        await self._closed.wait()

    async def request(self, kind: MessageType, head: Any) -> Any:
        """Return the head of the server's answer. Raises `MLServerError`: its error."""
        try:
            return (await self.call(kind, head)).head
        except WorkerDied:
            raise Unavailable("The server is stopping") from None

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self._closed.set()


class RemoteRepository:
    """The server's repository, called over the connection."""

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        items = await self._supervisor.request(MessageType.REPOSITORY, ["index", payload.ready])
        return RepositoryIndexResponse.model_validate(items)

    async def load(self, name: str) -> bool:
        return bool(await self._supervisor.request(MessageType.REPOSITORY, ["load", name]))

    async def unload(self, name: str) -> bool:
        return bool(await self._supervisor.request(MessageType.REPOSITORY, ["unload", name]))


class HTTPWorker:
    """The process's state, from INIT to STOP_SERVING."""

    def __init__(self) -> None:
        self._supervisor = SupervisorClient(
            {
                MessageType.INIT: self._init,
                MessageType.STATE: self._update_state,
                MessageType.START_SERVING: self._start_serving,
                MessageType.WAIT_RELEASED: self._wait_released,
                MessageType.LAST_ANSWERS: self._end_connections,
                MessageType.DRAIN: self._drain,
                MessageType.COLLECT_STATS: self._collect_stats,
                MessageType.COLLECT_ERRORS: self._collect_errors,
                MessageType.STOP_SERVING: self._stop_serving,
            }
        )
        self._front_ends: list[Any] = []
        self._watch: asyncio.Task[None] | None = None

    async def serve(self, end: socket.socket) -> None:
        """Serve until the server closes the connection."""
        await self._supervisor.open(end)
        self._supervisor.send(Frame(MessageType.READY, 0, {"pid": os.getpid()}))
        await self._supervisor.wait_closed()

    # -- calls of the server --

    async def _init(self, frame: Frame) -> Frame:
        self._settings = settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        extend_sys_path(frame.head["sys_path"])
        self._factory = PipelineFactory(settings, frame.head["index"])
        control_socket = control_socket_from_fd(frame.head["control_fd"])
        self._workers = WorkerConnections(
            control_socket, frame.head["index"], self._report_lost_worker
        )
        self._registry = ReplicaRegistry(
            self._workers, self._factory.build_pipeline, self._factory.metrics
        )
        self._data_plane = DataPlane(settings, self._registry, self._request_statistics)
        self._watch = asyncio.create_task(self._watch_workers())
        return _reply(frame)

    async def _update_state(self, frame: Frame) -> Frame:
        state = snapshot.unpack_state(frame.head)
        await self._workers.update(state.workers)
        self._registry.update(state)
        self._data_plane.accepting = state.accepting
        return _reply(frame)

    async def _start_serving(self, frame: Frame) -> Frame:
        page = self._request_metrics_page if self._settings.metrics_endpoint else None
        repository = RemoteRepository(self._supervisor)
        self._front_ends = self._factory.build_front_ends(
            self._settings, self._data_plane, repository, page, self._request_monitoring
        )
        for front_end in self._front_ends:
            await front_end.start()
        gc.freeze()
        return _reply(frame)

    async def _wait_released(self, frame: Frame) -> Frame:
        kind, identifier = frame.head
        if kind == "model":
            await self._registry.wait_released(identifier)
        else:
            await self._workers.wait_released(identifier)
        return _reply(frame)

    async def _end_connections(self, frame: Frame) -> Frame:
        for front_end in self._front_ends:
            front_end.end_connections()
        return _reply(frame)

    async def _drain(self, frame: Frame) -> Frame:
        await asyncio.gather(*(front_end.drain() for front_end in self._front_ends))
        await self._registry.drained()
        return _reply(frame)

    async def _collect_stats(self, frame: Frame) -> Frame:
        entries = self._registry.by_serial().items()
        statistics = [[serial, entry.statistics.to_frame()] for serial, entry in entries]
        return _reply(frame, {"metrics": self._factory.metrics.export(), "statistics": statistics})

    async def _collect_errors(self, frame: Frame) -> Frame:
        return _reply(frame, self._factory.metrics.errors.export())

    async def _stop_serving(self, frame: Frame) -> Frame:
        await asyncio.gather(*(front_end.stop(frame.head) for front_end in self._front_ends))
        await self._factory.close()
        return _reply(frame)

    # -- calls and notifications to the server --

    async def _request_statistics(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        serials = [entry.serial for entry in entries]
        sums = await self._supervisor.request(MessageType.STATISTICS, serials)
        return [ModelStatistics.from_frame(values) for values in sums]

    async def _request_metrics_page(self, accept: str) -> tuple[str, bytes]:
        content_type, text = await self._supervisor.request(MessageType.METRICS_PAGE, accept)
        return content_type, text

    async def _request_monitoring(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = await self._supervisor.request(MessageType.MONITORING, name)
        return document

    def _report_lost_worker(self, number: int) -> None:
        self._supervisor.send(Frame(MessageType.WORKER_LOST, 0, number))

    async def _watch_workers(self) -> None:
        """Report workers with an overdue call; the server checks whether they are stuck."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            overdue = self._workers.find_overdue(time.monotonic())
            for client in overdue:
                self._supervisor.send(Frame(MessageType.REPORT_STUCK, 0, client.number))
            # Calls that were cancelled are overdue until this process has an answer to a ping.
            pings = [client.is_reacting(PING_TIMEOUT) for client in overdue]
            await asyncio.gather(*pings, return_exceptions=True)


def _reply(frame: Frame, head: Any = None) -> Frame:
    return Frame(MessageType.REPLY, frame.id, head)


async def _serve(end: socket.socket) -> None:
    await HTTPWorker().serve(end)


if __name__ == "__main__":
    gc.set_threshold(*GC_THRESHOLD)
    run_child(_serve, int(sys.argv[1]))
