"""The server's own process and its further front ends: starts them, tells them, asks them, ends them."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl
from ..logging import get_logger
from ..metrics.endpoint import MetricsPage
from ..metrics.model_statistics import ModelStatistics
from ..metrics.server_metrics import ServerMetrics
from ..parallel.child_main import absolute_sys_path
from ..parallel.child_process import describe_exit
from ..parallel.pool_manager import PoolExecutor
from ..parallel.rpc.client import WorkerDied
from ..parallel.rpc.dispatcher import RPCHandler
from ..parallel.rpc.protocol import Frame, MessageType
from ..registry import ModelVersion, Registry
from ..settings import Settings, SettingsError
from ..types import RepositoryIndexRequest, RepositoryIndexResponse
from . import snapshot
from .process import HTTPWorkerProcess

logger = get_logger()

START_TIMEOUT = 120.0
TELL_LIMIT = 10.0  # seconds in which a front end takes a table; else it is ended, for it would answer by an old one
COUNT_LIMIT = 1.0  # seconds in which it says what it counted; else what it said last is taken
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
STEADY_AFTER = 60.0  # seconds of life after which an end is no longer held against its successor


@dataclass(frozen=True)
class PrimaryState:
    """What the server's own process has, and the further ones do not.

    Attributes:
        settings: With the ports that all share.
        metrics_page: Gives the page with the sums of all processes.
    """

    settings: Settings
    registry: Registry
    executor: PoolExecutor
    data_plane: DataPlane
    repository: RepositoryControl
    metrics: ServerMetrics
    metrics_page: MetricsPage


class HTTPWorkerSupervisor:
    """All further front ends. They hear of every change, and are asked what they counted.

    Args:
        settings: The server's.

    Raises:
        SettingsError: the other settings, or this system, do not go with more than one process.
    """

    def __init__(self, settings: Settings) -> None:
        _check(settings)
        self._indices = range(1, settings.http_workers)
        self._drain_timeout = settings.drain_timeout
        self._http_workers: list[HTTPWorkerProcess] = []
        self._processes: set[HTTPWorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Future[Any] | None = None
        self._pauses = dict.fromkeys(self._indices, 0.0)
        self._revision = 0
        self._progress = asyncio.Event()
        self._stopping = False
        # What those counted that are no more.
        self._past_metrics = ServerMetrics(settings.metrics_rest_server_prefix)
        self._past_statistics: dict[int, ModelStatistics] = {}
        self._owned: PrimaryState | None = None

    # -- starting and ending --

    def start(self, owned: PrimaryState) -> None:
        """Begin to start all of them."""
        self._owned = owned
        self._starting = asyncio.gather(*(self._start_front(index) for index in self._indices))

    async def wait_started(self) -> None:
        """Return when all are there and know all models. Raises `MLServerError` if one cannot be started."""
        assert self._starting is not None
        try:
            await asyncio.shield(self._starting)
        except (WorkerDied, MLServerError, TimeoutError, OSError) as error:
            raise MLServerError(
                f"A front end process could not be started: {error!r}", 500
            ) from None
        await self.wait_synchronized()

    async def stop(self, closing: float) -> None:
        """Let them close their connections within `closing` seconds, then end them."""
        self._stopping = True
        self._note_progress()
        ending: list[asyncio.Future[Any]] = [
            *self._tasks,
            *([self._starting] if self._starting else []),
        ]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await asyncio.gather(*(self._end(front, closing) for front in list(self._processes)))

    async def _end(self, front: HTTPWorkerProcess, closing: float) -> None:
        await front.ask(MessageType.STOP_SERVING, closing, closing + 1.0)
        await front.stop(1.0)

    async def _start_front(self, index: int) -> None:
        owned = self._owned
        assert owned is not None
        actions: dict[int, RPCHandler] = {
            MessageType.REPOSITORY: self._answer_repository,
            MessageType.STATISTICS: self._answer_statistics,
            MessageType.METRICS_PAGE: self._answer_metrics_page,
        }
        front = HTTPWorkerProcess(index, actions, self._on_exit, self._on_notification)
        self._processes.add(front)
        init = {
            "settings": owned.settings.to_frame(),
            "sys_path": absolute_sys_path(),
            "number": index,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await front.start(init, START_TIMEOUT)
                self._http_workers.append(front)
                self._spawn(self._keep_told(front))
                while front.told < 0 and not front.is_gone:
                    await self._progress.wait()
                await front.call(MessageType.START_SERVING, None)
            if front.is_gone:
                raise WorkerDied
        except BaseException:
            await asyncio.shield(front.stop(0.0))
            self._processes.discard(front)
            if front in self._http_workers:
                self._http_workers.remove(front)
            raise
        front.is_open = True

    def _on_exit(self, front: HTTPWorkerProcess) -> None:
        if front in self._http_workers:
            self._http_workers.remove(front)
        self._keep_counts(front)
        self._note_progress()
        if front.is_open and not self._stopping:
            self._spawn(self._replace(front))

    async def _replace(self, dead: HTTPWorkerProcess) -> None:
        code = await dead.reap()
        self._processes.discard(dead)
        logger.error(
            "Front end process %s ended unexpectedly (%s); starting another",
            dead.pid,
            describe_exit(code),
        )
        pause = 0.0 if time.monotonic() - dead.born > STEADY_AFTER else self._pauses[dead.index]
        while True:
            await asyncio.sleep(pause)
            self._pauses[dead.index] = pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            try:
                await self._start_front(dead.index)
                return
            except (WorkerDied, MLServerError, TimeoutError, OSError) as error:
                logger.error(
                    "A front end process could not be started: %r; trying again in %.1f s",
                    error,
                    pause,
                )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- telling --

    def publish_state(self) -> None:
        """Models, workers or readiness are not as they were."""
        self._revision += 1
        for front in self._http_workers:
            front.news.set()

    on_workers_changed = publish_state

    async def wait_synchronized(self) -> None:
        """Return when every front end knows what is known here now."""
        revision = self._revision
        while not self._stopping and any(front.told < revision for front in self._http_workers):
            await self._progress.wait()

    async def _keep_told(self, front: HTTPWorkerProcess) -> None:
        while True:
            await front.news.wait()
            front.news.clear()
            try:
                async with asyncio.timeout(TELL_LIMIT):
                    await self._tell(front)
            except WorkerDied:
                return
            except (MLServerError, TimeoutError) as error:
                logger.error(
                    "Front end process %s does not take what it is told, so it is ended: %r",
                    front.pid,
                    error,
                )
                front.kill()
                return
            self._note_progress()

    async def _tell(self, front: HTTPWorkerProcess) -> None:
        owned, revision = self._owned, self._revision
        assert owned is not None
        workers = owned.executor.workers
        for _, worker in workers:
            if worker.number not in front.connected:
                front.connect(worker)
        rows = [(worker.number, pool, worker.model_keys) for pool, worker in workers]
        values = snapshot.write(owned.data_plane.accepting, owned.registry, rows, front.known)
        await front.call(MessageType.STATE, values)
        front.known = snapshot.keys_in(values)
        front.told = revision

    def _note_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # -- asking --

    async def wait_model_released(self, key: str) -> None:
        """Return when none of them uses a model any more, or has had the time to end what it began."""
        await self._ask_all(MessageType.WAIT_RELEASED, ["model", key], self._drain_timeout)

    async def wait_worker_released(self, number: int) -> None:
        """Return when none of them uses a worker any more, or has had the time to end what it began."""
        await self._ask_all(MessageType.WAIT_RELEASED, ["worker", number], self._drain_timeout)

    def end_connections(self) -> None:
        """Have them say with each answer from now on that its connection ends."""
        self._spawn(self._ask_all(MessageType.LAST_ANSWERS, None, TELL_LIMIT))

    async def drain(self) -> None:
        """Have them take no more connections; return when none of them has anything to do."""
        await self._ask_all(MessageType.DRAIN, None, None)

    async def _ask_all(self, kind: MessageType, head: Any, limit: float | None) -> None:
        await self.wait_synchronized()
        await asyncio.gather(*(front.ask(kind, head, limit) for front in self._http_workers))

    async def metrics(self) -> ServerMetrics:
        """The sum of all processes' metrics."""
        assert self._owned is not None
        await self._collect()
        counted = [front.counts["metrics"] for front in self._http_workers]
        return self._owned.metrics.with_others([self._past_metrics.export(), *counted])

    async def statistics(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        """The sums of all processes' statistics of these entries."""
        await self._collect()
        return [self._sum_of(entry) for entry in entries]

    def _sum_of(self, entry: ModelVersion) -> ModelStatistics:
        sums = ModelStatistics()
        sums.add(entry.statistics)
        if entry.serial in self._past_statistics:
            sums.add(self._past_statistics[entry.serial])
        for front in self._http_workers:
            for serial, values in front.counts["statistics"]:
                if serial == entry.serial:
                    sums.add(ModelStatistics.from_frame(values))
        return sums

    async def _collect(self) -> None:
        async def ask(front: HTTPWorkerProcess) -> None:
            counts = await front.ask(MessageType.COLLECT_STATS, None, COUNT_LIMIT)
            if counts is not None:
                front.counts = counts

        await asyncio.gather(*(ask(front) for front in self._http_workers))

    def _keep_counts(self, front: HTTPWorkerProcess) -> None:
        """What it counted stays in the sums, as far as it was told."""
        self._past_metrics.absorb(front.counts["metrics"], ended=True)
        for serial, values in front.counts["statistics"]:
            self._past_statistics.setdefault(serial, ModelStatistics()).add(
                ModelStatistics.from_frame(values)
            )

    # -- answering --

    async def _answer_repository(self, frame: Frame) -> Frame:
        assert self._owned is not None
        repository = self._owned.repository
        what, argument = frame.head
        answer: Any
        if what == "index":
            answer = (await repository.index(RepositoryIndexRequest(ready=argument))).model_dump(
                mode="json"
            )
        else:
            answer = await (
                repository.load(argument) if what == "load" else repository.unload(argument)
            )
        return Frame(MessageType.REPLY, frame.id, answer)

    async def _answer_statistics(self, frame: Frame) -> Frame:
        assert self._owned is not None
        entries = {entry.serial: entry for entry in self._owned.registry.entries()}
        sums = await self.statistics(
            [entries[serial] for serial in frame.head if serial in entries]
        )
        by_serial = dict(
            zip([serial for serial in frame.head if serial in entries], sums, strict=True)
        )
        answer = [by_serial.get(serial, ModelStatistics()).to_frame() for serial in frame.head]
        return Frame(MessageType.REPLY, frame.id, answer)

    async def _answer_metrics_page(self, frame: Frame) -> Frame:
        assert self._owned is not None
        return Frame(MessageType.REPLY, frame.id, list(await self._owned.metrics_page(frame.head)))

    def _on_notification(self, front: HTTPWorkerProcess, frame: Frame) -> None:
        assert self._owned is not None
        if frame.kind == MessageType.REPORT_STUCK:
            self._owned.executor.report_stuck(frame.head)
        elif frame.kind == MessageType.WORKER_LOST:
            front.connected.discard(frame.head)
            front.news.set()


class SynchronizedRepository:
    """The repository, where a change has been made when every front end knows of it."""

    def __init__(self, repository: RepositoryControl, http_workers: HTTPWorkerSupervisor) -> None:
        self._repository = repository
        self._http_workers = http_workers

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        return await self._repository.index(payload)

    async def load(self, name: str) -> bool:
        try:
            return await self._repository.load(name)
        finally:
            await self._http_workers.wait_synchronized()

    async def unload(self, name: str) -> bool:
        try:
            return await self._repository.unload(name)
        finally:
            await self._http_workers.wait_synchronized()


def reserve_ports(settings: Settings) -> Settings:
    """The settings with ports that nobody listens on, also where any free one was asked for.

    The sockets that share a port cannot tell: they would share it with another server's just as well.

    Raises:
        MLServerError: a port is taken; the text names it and its setting.
    """
    from ..rest.http.server import bind

    hosts = {
        "http_port": settings.host,
        "grpc_port": settings.host,
        "admin_port": settings.admin_host,
    }
    wanted = {field: getattr(settings, field) for field in hosts}
    held: dict[str, socket.socket] = {}
    try:
        for field, port in wanted.items():
            if port is not None:
                held[field] = bind(hosts[field], port, field)
        return settings.model_copy(
            update={field: one.getsockname()[1] for field, one in held.items()}
        )
    finally:
        for one in held.values():
            one.close()


def _check(settings: Settings) -> None:
    if sys.platform != "linux":
        raise SettingsError(
            "http_workers: more than 1 needs Linux, whose processes can share a port"
        )
    if settings.parallel_workers <= 0:
        raise SettingsError(
            "http_workers: more than 1 needs models in workers: set parallel_workers to 1 or more"
        )
