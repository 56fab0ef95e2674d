"""Supervises HTTP worker processes: start, publish state, collect statistics, stop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import ReadMonitoring, RepositoryControl
from ..logging import get_logger
from ..metrics.endpoint import MetricsPage
from ..metrics.model_statistics import ModelStatistics
from ..metrics.server_metrics import ServerMetrics
from ..parallel.child_main import absolute_sys_path
from ..parallel.pool_manager import PoolExecutor
from ..parallel.processes.exit_codes import describe_exit
from ..parallel.rpc.client import WorkerDied
from ..parallel.rpc.dispatcher import RPCHandler
from ..parallel.rpc.protocol import Frame, MessageType
from ..registry import ModelVersion, Registry
from ..settings import Settings
from ..types import RepositoryIndexRequest
from . import snapshot
from .ports import check_support
from .process import FLUSH_LIMIT, HTTPWorkerProcess

logger = get_logger()

START_TIMEOUT = 120.0
# Seconds in which an HTTP worker must acknowledge a snapshot or a ping; else it is killed, because
# it would answer with an old state, or not at all.
PUBLISH_TIMEOUT = 10.0
PING_INTERVAL = 5.0  # seconds without a change of the state
COLLECT_TIMEOUT = 1.0  # seconds for its counts; after that its last counts are used
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
STABLE_AFTER = 60.0  # seconds of uptime after which a replacement starts without a pause


@dataclass(frozen=True)
class PrimaryState:
    """What only the server's process has.

    Attributes:
        settings: With the ports that all processes share.
        metrics_page: Returns the metrics page with the sums of all processes.
        read_monitoring: Returns a monitoring document by its name.
    """

    settings: Settings
    registry: Registry
    executor: PoolExecutor
    data_plane: DataPlane
    repository: RepositoryControl
    metrics: ServerMetrics
    metrics_page: MetricsPage
    read_monitoring: ReadMonitoring


class HTTPWorkerSupervisor:
    """All HTTP worker processes: publishes every change to them and sums their counts.

    Args:
        settings: The server's settings.

    Raises:
        SettingsError: other settings or the system do not allow more than one process.
    """

    def __init__(self, settings: Settings) -> None:
        check_support(settings)
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
        # Counts and errors of ended processes.
        self._past_metrics = ServerMetrics(settings.metrics_rest_server_prefix)
        self._past_statistics: dict[int, ModelStatistics] = {}
        self.http_worker_deaths: Counter[str] = Counter()
        self._past_errors: dict[str, Any] = {"errors": [], "counts": {}}
        self._primary: PrimaryState | None = None

    # -- starting and ending --

    def start(self, primary: PrimaryState) -> None:
        """Start all processes; `wait_started` waits for them."""
        self._primary = primary
        starts = [self._start_http_worker(index) for index in self._indices]
        self._starting = asyncio.gather(*starts)

    async def wait_started(self) -> None:
        """Return when all processes serve the current state.

        Raises:
            MLServerError: one cannot be started.
        """
        assert self._starting is not None
        try:
            await asyncio.shield(self._starting)
        except (WorkerDied, MLServerError, TimeoutError, OSError) as error:
            raise MLServerError(
                f"An HTTP worker process could not be started: {error!r}", 500
            ) from None
        await self.wait_synchronized()

    async def stop(self, closing: float) -> None:
        """End all processes, after `closing` seconds for their open connections."""
        self._stopping = True
        self._announce_progress()
        tasks: list[asyncio.Future[Any]] = list(self._tasks)
        if self._starting is not None:
            tasks.append(self._starting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(process, closing) for process in list(self._processes)))

    async def _end(self, http_worker: HTTPWorkerProcess, closing: float) -> None:
        await http_worker.try_call(MessageType.STOP_SERVING, closing, closing + FLUSH_LIMIT)
        await http_worker.stop(1.0)

    async def _start_http_worker(self, index: int) -> None:
        primary = self._primary
        assert primary is not None
        handlers: dict[int, RPCHandler] = {
            MessageType.REPOSITORY: self._answer_repository,
            MessageType.STATISTICS: self._answer_statistics,
            MessageType.METRICS_PAGE: self._answer_metrics_page,
            MessageType.MONITORING: self._answer_monitoring,
        }
        http_worker = HTTPWorkerProcess(index, handlers, self._on_exit, self._on_notification)
        self._processes.add(http_worker)
        init = {
            "settings": primary.settings.to_frame(),
            "sys_path": absolute_sys_path(),
            "index": index,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await http_worker.start(init, START_TIMEOUT)
                self._http_workers.append(http_worker)
                self._spawn(self._publish_changes(http_worker))
                while http_worker.acknowledged_revision < 0 and not http_worker.is_gone:
                    await self._progress.wait()
                await http_worker.call(MessageType.START_SERVING, None)
            if http_worker.is_gone:
                raise WorkerDied
        except BaseException:
            await asyncio.shield(http_worker.stop(0.0))
            self._processes.discard(http_worker)
            if http_worker in self._http_workers:
                self._http_workers.remove(http_worker)
            raise
        http_worker.is_serving = True

    def _on_exit(self, http_worker: HTTPWorkerProcess) -> None:
        if http_worker in self._http_workers:
            self._http_workers.remove(http_worker)
        self._add_past_counts(http_worker)
        self._announce_progress()
        if http_worker.is_serving and not self._stopping:
            self._spawn(self._replace(http_worker))

    async def _replace(self, dead: HTTPWorkerProcess) -> None:
        code = await dead.reap()
        self.http_worker_deaths[dead.classify_exit(code)] += 1
        self._processes.discard(dead)
        logger.error(
            "HTTP worker %s ended unexpectedly (%s); starting another",
            dead.pid,
            describe_exit(code),
        )
        pause = (
            0.0 if time.monotonic() - dead.started_at > STABLE_AFTER else self._pauses[dead.index]
        )
        while True:
            await asyncio.sleep(pause)
            self._pauses[dead.index] = pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            try:
                await self._start_http_worker(dead.index)
                return
            except Exception as error:
                logger.error(
                    "An HTTP worker could not be started: %r; next attempt in %.1f s",
                    error,
                    pause,
                )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- publishing the state --

    def publish_state(self) -> None:
        """Publish the current models, workers and readiness to all processes."""
        self._revision += 1
        for http_worker in self._http_workers:
            http_worker.state_changed.set()

    on_workers_changed = publish_state

    async def wait_synchronized(self) -> None:
        """Return when every process has acknowledged the current state."""
        revision = self._revision
        while not self._stopping and self._is_behind(revision):
            await self._progress.wait()

    def _is_behind(self, revision: int) -> bool:
        return any(process.acknowledged_revision < revision for process in self._http_workers)

    async def _publish_changes(self, http_worker: HTTPWorkerProcess) -> None:
        """Publish each change of the state to a process, and kill it if it does not react."""
        while not http_worker.is_gone:
            is_changed = await http_worker.wait_changed(PING_INTERVAL)
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    if is_changed:
                        await self._publish(http_worker)
                    else:
                        await http_worker.call(MessageType.PING, None)
            except WorkerDied:
                return
            except Exception as error:
                logger.error(
                    "HTTP worker %s did not acknowledge the %s within %g s, killing it: %r",
                    http_worker.pid,
                    "state" if is_changed else "ping",
                    PUBLISH_TIMEOUT,
                    error,
                )
                http_worker.kill_stuck()
                return
            self._announce_progress()

    async def _publish(self, http_worker: HTTPWorkerProcess) -> None:
        primary, revision = self._primary, self._revision
        assert primary is not None
        workers = primary.executor.workers
        for _, worker in workers:
            if worker.number not in http_worker.connected_workers:
                http_worker.connect(worker)
        rows = [(worker.number, pool, worker.model_keys) for pool, worker in workers]
        values = snapshot.pack_state(
            primary.data_plane.accepting, primary.registry, rows, http_worker.sent_models
        )
        await http_worker.call(MessageType.STATE, values)
        http_worker.sent_models = snapshot.get_model_keys(values)
        http_worker.acknowledged_revision = revision

    def _announce_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # -- calls to all processes --

    async def wait_model_released(self, key: str) -> None:
        """Return when no process uses the model any more, or after the drain timeout."""
        await self._call_all(MessageType.WAIT_RELEASED, ["model", key], self._drain_timeout)

    async def wait_worker_released(self, number: int) -> None:
        """Return when no process uses the worker any more, or after the drain timeout."""
        await self._call_all(MessageType.WAIT_RELEASED, ["worker", number], self._drain_timeout)

    def end_connections(self) -> None:
        """Make every process close each connection after its next response."""
        self._spawn(self._call_all(MessageType.LAST_ANSWERS, None, PUBLISH_TIMEOUT))

    async def drain(self) -> None:
        """Make every process stop accepting connections; return when all are idle."""
        await self._call_all(MessageType.DRAIN, None, None)

    async def _call_all(self, kind: MessageType, head: Any, timeout: float | None) -> None:
        await self.wait_synchronized()
        calls = [process.try_call(kind, head, timeout) for process in self._http_workers]
        await asyncio.gather(*calls)

    async def metrics(self) -> ServerMetrics:
        """Return the sums of all processes' metrics."""
        assert self._primary is not None
        await self._collect()
        counted = [http_worker.counts["metrics"] for http_worker in self._http_workers]
        return self._primary.metrics.with_others([self._past_metrics.export(), *counted])

    async def statistics(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        """Return the sums of all processes' statistics of these models."""
        await self._collect()
        return [self._sum_statistics(entry) for entry in entries]

    async def recent_errors(self) -> list[dict[str, Any]]:
        """Return the recent errors of each process, and those of the ended ones."""
        assert self._primary is not None

        async def collect_from(http_worker: HTTPWorkerProcess) -> None:
            errors = await http_worker.try_call(MessageType.COLLECT_ERRORS, None, COLLECT_TIMEOUT)
            if errors is not None:
                http_worker.errors = errors

        processes = list(self._http_workers)
        await asyncio.gather(*(collect_from(http_worker) for http_worker in processes))
        # One that has ended meanwhile is in both.
        live = [process.errors for process in processes if process in self._http_workers]
        return [self._primary.metrics.errors.export(), self._past_errors, *live]

    def list_http_workers(self) -> list[dict[str, Any]]:
        """Return index, process id and whether it serves, of each process."""
        return [
            {"index": process.index, "pid": process.pid, "serving": process.is_serving}
            for process in self._http_workers
        ]

    def _sum_statistics(self, entry: ModelVersion) -> ModelStatistics:
        sums = ModelStatistics()
        sums.add(entry.statistics)
        if entry.serial in self._past_statistics:
            sums.add(self._past_statistics[entry.serial])
        for http_worker in self._http_workers:
            for serial, values in http_worker.counts["statistics"]:
                if serial == entry.serial:
                    sums.add(ModelStatistics.from_frame(values))
        return sums

    async def _collect(self) -> None:
        async def collect_from(http_worker: HTTPWorkerProcess) -> None:
            counts = await http_worker.try_call(MessageType.COLLECT_STATS, None, COLLECT_TIMEOUT)
            if counts is not None:
                http_worker.counts = counts

        await asyncio.gather(*(collect_from(http_worker) for http_worker in self._http_workers))

    def _add_past_counts(self, http_worker: HTTPWorkerProcess) -> None:
        """Add the last known counts and errors of an ended process to the sums."""
        self._past_metrics.absorb(http_worker.counts["metrics"], ended=True)
        for serial, values in http_worker.counts["statistics"]:
            self._past_statistics.setdefault(serial, ModelStatistics()).add(
                ModelStatistics.from_frame(values)
            )
        from ..metrics.recent_errors import merge_errors

        self._past_errors = merge_errors([self._past_errors, http_worker.errors])

    # -- calls of the processes --

    async def _answer_repository(self, frame: Frame) -> Frame:
        assert self._primary is not None
        repository = self._primary.repository
        action, argument = frame.head
        answer: Any
        if action == "index":
            index = await repository.index(RepositoryIndexRequest(ready=argument))
            answer = index.model_dump(mode="json")
        elif action == "load":
            answer = await repository.load(argument)
        else:
            answer = await repository.unload(argument)
        return Frame(MessageType.REPLY, frame.id, answer)

    async def _answer_statistics(self, frame: Frame) -> Frame:
        assert self._primary is not None
        entries = {entry.serial: entry for entry in self._primary.registry.entries()}
        known = [serial for serial in frame.head if serial in entries]
        sums = await self.statistics([entries[serial] for serial in known])
        by_serial = dict(zip(known, sums, strict=True))
        answer = [by_serial.get(serial, ModelStatistics()).to_frame() for serial in frame.head]
        return Frame(MessageType.REPLY, frame.id, answer)

    async def _answer_metrics_page(self, frame: Frame) -> Frame:
        assert self._primary is not None
        page = await self._primary.metrics_page(frame.head)
        return Frame(MessageType.REPLY, frame.id, list(page))

    async def _answer_monitoring(self, frame: Frame) -> Frame:
        assert self._primary is not None
        document = await self._primary.read_monitoring(frame.head)
        return Frame(MessageType.REPLY, frame.id, document)

    def _on_notification(self, http_worker: HTTPWorkerProcess, frame: Frame) -> None:
        assert self._primary is not None
        if frame.kind == MessageType.REPORT_STUCK:
            self._primary.executor.report_stuck(frame.head)
        elif frame.kind == MessageType.WORKER_LOST:
            http_worker.connected_workers.discard(frame.head)
            http_worker.state_changed.set()
