"""The server: builds, starts and stops all parts, from the executor to the front ends.

The order is executor, registry with one pipeline per model, data plane, front ends.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import startup_report
from .assembly import PipelineFactory, create_executor, import_front_ends
from .errors import MLServerError
from .handlers import DataPlane, ModelRepositoryHandlers
from .handlers.alias_watcher import AliasWatcher
from .handlers.model_repository import RepositoryControl
from .logging import configure_logger, get_logger
from .metrics.endpoint import MetricsPage, MetricsServer
from .parallel.executor import LoadedModel
from .registry import ModelPipeline, ModelVersion, Registry
from .repository import ModelRepositoryFactory
from .security import code_policy
from .settings import ModelSettings, Settings
from .startup_report import format_entry

if TYPE_CHECKING:
    from .handlers.monitoring import Monitoring, ServerState
    from .http_workers.supervisor import HTTPWorkerSupervisor
    from .metrics.state_instruments import StateInstruments
    from .parallel.processes.template_process import TemplateProcess

logger = get_logger()

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name)
)


class NothingLoaded(MLServerError):
    """None of the models could be loaded."""


class MLServer:
    """A server. Create it inside a running event loop, start it once, and stop it once.

    Args:
        settings: Its settings.
        template: A template process that is started already (`processes.templates.start_early`).
    """

    def __init__(self, settings: Settings, template: TemplateProcess | None = None) -> None:
        configure_logger(settings)
        code_policy.install_policy(settings)
        self._settings = settings
        self._factory = PipelineFactory(settings)
        self._http_workers = _create_http_worker_supervisor(settings)
        self._executor = create_executor(settings, self._http_workers, template)
        self._registry = Registry(
            self._executor,
            self._build_pipeline,
            self._factory.metrics,
            settings.drain_timeout,
            self._publish_state,
            self._factory.check_settings,
        )
        self._alias_watcher = AliasWatcher(self._registry)
        self._repository = ModelRepositoryFactory.resolve_model_repository(settings)
        self._handlers = ModelRepositoryHandlers(self._repository, self._registry)
        gather = None if self._http_workers is None else self._http_workers.statistics
        self._data_plane = DataPlane(settings, self._registry, gather)
        self._front_ends: list[Any] = []
        self._kafka: Any = None
        self._monitoring: Monitoring | None = None
        self._stop_requested = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._was_ready = False
        self._logged_failures: set[str] = set()
        self._started_at = time.monotonic()

    # -- assembly --

    def _build_pipeline(self, entry: ModelVersion, loaded: LoadedModel) -> ModelPipeline:
        pipeline = self._factory.build_pipeline(entry, loaded)
        self._alias_watcher.watch(entry, loaded)
        return pipeline

    def _build_front_ends(self) -> list[Any]:
        """Return the front ends, bound to their ports: a port in use fails before models load."""
        settings, gather = self._settings, None
        if self._http_workers is not None:
            from .http_workers.ports import reserve_ports

            settings, gather = reserve_ports(settings), self._http_workers.metrics
        metrics = MetricsServer(settings, self._factory.metrics, gather, self._read_state)
        page = metrics.page if settings.metrics_endpoint else None
        parts = settings, self._data_plane, self._repository_control(), page
        front_ends = self._factory.build_front_ends(*parts, self._read_monitoring)
        if self._settings.has_metrics_port:
            from .rest.front_end import MetricsFrontEnd

            front_ends.append(MetricsFrontEnd(settings, metrics, self._factory.authorizer))
        if settings.kafka_enabled:
            from .kafka import KafkaServer

            shared = self._factory.authorizer, self._factory.metrics
            self._kafka = KafkaServer(settings, self._data_plane, *shared)
        if self._http_workers is not None:
            self._start_http_workers(self._http_workers, settings, metrics.page)
        return front_ends

    def _start_http_workers(
        self, http_workers: HTTPWorkerSupervisor, settings: Settings, page: MetricsPage
    ) -> None:
        from .http_workers.supervisor import PrimaryState
        from .parallel.pool_manager import PoolExecutor

        assert isinstance(self._executor, PoolExecutor)
        repository, metrics = self._repository_control(), self._factory.metrics
        http_workers.start(
            PrimaryState(
                settings,
                self._registry,
                self._executor,
                self._data_plane,
                repository,
                metrics,
                page,
                self._read_monitoring,
            )
        )

    async def _read_monitoring(self, name: str) -> dict[str, Any]:
        """Return a document of `handlers.monitoring`, which is imported on the first call."""
        if self._monitoring is None:
            from .handlers.monitoring import Monitoring

            self._monitoring = Monitoring(self._settings, self._state())
        return await self._monitoring.read(name)

    def _read_state(self) -> StateInstruments:
        """Return the state of models and processes as metrics."""
        from .handlers.state_metrics import read_state

        return read_state(self._state())

    def _state(self) -> ServerState:
        from .handlers.monitoring import ServerState, SingleProcess
        from .parallel.death_count import ProcessEvents

        return ServerState(
            started=time.time() - (time.monotonic() - self._started_at),
            registry=self._registry,
            data_plane=self._data_plane,
            processes=self._http_workers or SingleProcess(self._factory.metrics),
            list_pools=getattr(self._executor, "pools", list),
            alias_states=self._alias_watcher.states,
            count_events=getattr(self._executor, "count_events", ProcessEvents),
            http_workers=self._settings.http_workers - 1,
            ports={"grpc": self._front_ends[1].port},  # see `build_front_ends`
        )

    def _repository_control(self) -> RepositoryControl:
        if self._http_workers is None:
            return self._handlers
        from .http_workers.repository import SynchronizedRepository

        return SynchronizedRepository(self._handlers, self._http_workers)

    def _publish_state(self) -> None:
        if self._http_workers is not None:
            self._http_workers.publish_state()

    def _accept(self, accepting: bool) -> None:
        self._data_plane.accepting = accepting
        self._publish_state()

    # -- start and stop --

    async def start(
        self,
        models_settings: Sequence[ModelSettings] = (),
        on_ready: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        """Serve until `stop` or a signal.

        Args:
            models_settings: Models to load; () = those of the repository, if
                `load_models_at_startup`.
            on_ready: Called with the addresses (`REST`, `gRPC` ...) when the server is ready.

        Raises:
            MLServerError: a port is in use, a worker cannot start, or none of the models could be
                loaded.
        """
        restore = self._capture_signals()
        try:
            models = list(models_settings) or await self._models_at_startup()
            # Before a port is open, so that no model of the repository is answered with "not
            # found".
            for settings in models:
                self._registry.announce(settings)
            startup_report.log_found(models, self._problems(), self._settings)
            starting = asyncio.create_task(self._executor.start(models))
            checking = asyncio.create_task(asyncio.to_thread(startup_report.warn_of_known_faults))
            try:
                # In a thread, so that the workers, which import far more, are started meanwhile.
                await asyncio.to_thread(import_front_ends)
                self._front_ends = self._build_front_ends()
                for front_end in self._front_ends:
                    await front_end.start()
            finally:
                started = asyncio.gather(starting, checking)
                await self._wait_unless_stopped(started, None, self._stop_requested)
            if not self._stop_requested.is_set():
                await self._load(models, on_ready)
            if self._kafka is not None and not self._stop_requested.is_set():
                # Messages consumed before models are loaded would all be rejected.
                self._front_ends.append(self._kafka)
                await self._kafka.start()
            await self._stop_requested.wait()
        finally:
            await self._shut_down()
            restore()

    async def stop(self, sig: int | None = None) -> None:
        """Request a graceful shutdown; `start` returns when it has ended.

        A second call skips the wait for running requests.
        """
        if self._stop_requested.is_set() and not self._stop_now.is_set():
            logger.warning("Stopping at once: running requests are aborted")
            self._stop_now.set()
        self._accept(False)
        self._stop_requested.set()
        for front_end in self._front_ends:
            front_end.end_connections()
        if self._http_workers is not None:
            self._http_workers.end_connections()

    async def _models_at_startup(self) -> list[ModelSettings]:
        if not self._settings.load_models_at_startup:
            return []
        self._repository.logs_problems = False  # `_log_failures` reports them
        try:
            return list(await self._repository.list())
        finally:
            self._repository.logs_problems = True

    def _problems(self) -> Mapping[str, str]:
        """Return the models of the repository with invalid settings: name -> reason."""
        return self._repository.problems if self._settings.load_models_at_startup else {}

    def _find_failures(self) -> dict[str, str]:
        """Return the models that could not be loaded: label -> reason."""
        entries = self._registry.entries()
        reasons = {format_entry(entry): entry.reason for entry in entries if entry.reason}
        return reasons | dict(self._problems())

    async def _load_all(self, models: list[ModelSettings]) -> int:
        loaded = await self._handlers.load_all(models, is_logged=False)
        if self._http_workers is not None:
            await self._http_workers.wait_started()
        return loaded

    async def _load(
        self,
        models: list[ModelSettings],
        on_ready: Callable[[Mapping[str, str]], None] | None,
    ) -> None:
        loading = asyncio.create_task(self._load_all(models))
        stopping = asyncio.create_task(self._stop_requested.wait())
        await self._wait_for_load(loading, stopping)
        stopping.cancel()
        if not loading.done():
            self._log_new_failures(self._find_failures())
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        loaded = await loading
        reasons = self._find_failures()
        self._registry.missing.update(self._problems())
        if reasons and not loaded:
            if len(reasons) > 1:
                self._log_new_failures(reasons)
            raise NothingLoaded(startup_report.describe_failed_start(reasons, self._settings))
        # Existing objects are permanent: without this, each full collection would examine them
        # again and delay requests.
        gc.freeze()
        follow = getattr(self._executor, "follow", None)
        if follow is not None:  # other servers load and unload models of the same cluster
            follow(self._registry.load, self._registry.unload)
        self._accept(True)
        self._was_ready = True
        if self._http_workers is not None:
            await self._http_workers.wait_synchronized()
        seconds = time.monotonic() - self._started_at
        report = startup_report.log_ready(self._settings, seconds, self._front_ends, self._registry)
        if on_ready is not None:
            on_ready(report.addresses)
        self._log_new_failures(reasons)
        startup_report.log_not_ready(reasons)

    async def _wait_for_load(self, loading: asyncio.Task[int], stopping: asyncio.Task[Any]) -> None:
        """Wait until all models are loaded or the server stops; log what is loading meanwhile."""
        while True:
            tasks, interval = (loading, stopping), startup_report.PROGRESS_INTERVAL
            await asyncio.wait(tasks, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
            if loading.done() or stopping.done():
                return
            pending = [format_entry(entry) for entry in self._registry.entries() if entry.loading]
            self._log_new_failures(self._find_failures())
            startup_report.log_loading(pending, time.monotonic() - self._started_at)

    def _log_new_failures(self, reasons: dict[str, str]) -> None:
        """Log the models that could not be loaded, each once."""
        new = {label: reasons[label] for label in reasons if label not in self._logged_failures}
        self._logged_failures.update(new)
        startup_report.log_failures(new, self._settings)

    async def _shut_down(self) -> None:
        """Drain, then close in the order of a request: front ends, executor, tracing."""
        self._accept(False)
        began, is_requested = time.monotonic(), self._stop_requested.is_set()
        if is_requested:
            startup_report.log_stopping(self._settings, self._registry.entries(), self._was_ready)
        await self._alias_watcher.stop()
        if self._was_ready and self._stop_requested.is_set():
            await self._wait_unless_stopped(asyncio.sleep(self._settings.shutdown_delay), None)
        is_drained = await self._wait_unless_stopped(self._drained(), self._settings.drain_timeout)
        if not is_drained:
            logger.warning("Stopping while requests still run: they exceeded 'drain_timeout'")
        close_timeout = 1.0 if is_drained else 0.1
        others = [] if self._http_workers is None else [self._http_workers.stop(close_timeout)]
        await asyncio.gather(
            *(front_end.stop(close_timeout) for front_end in self._front_ends), *others
        )
        await self._executor.stop(self._settings.parallel_workers_timeout if is_drained else 0.1)
        await self._factory.close()
        if is_requested:
            logger.info("Stopped in %.2f s", time.monotonic() - began)

    async def _wait_unless_stopped(
        self, work: Awaitable[Any], limit: float | None, stopped: asyncio.Event | None = None
    ) -> bool:
        """Wait for `work`, at most `limit` seconds, and no longer than until `stopped` is set.

        By default that is the second call of `stop`. Returns whether it is done.
        """
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task((stopped or self._stop_now).wait())
        tasks = (working, stopping)
        try:
            await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_done = working.done()
            working.cancel()
            stopping.cancel()
        await (working if is_done else asyncio.gather(working, return_exceptions=True))
        return is_done

    async def _drained(self) -> None:
        """Accept no more connections, and wait for the responses to running requests."""
        others = [] if self._http_workers is None else [self._http_workers.drain()]
        await asyncio.gather(*(front_end.drain() for front_end in self._front_ends), *others)
        await self._registry.drained()

    def _capture_signals(self) -> Any:
        """Stop the server on SIGINT, SIGTERM and SIGQUIT.

        Returns a function that restores the previous handlers.
        """
        loop = asyncio.get_running_loop()
        previous = {}
        for number in SIGNALS:
            previous[number] = signal.getsignal(number)
            loop.add_signal_handler(number, lambda: loop.create_task(self.stop()))

        def restore() -> None:
            for number, handler in previous.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

        return restore


def _create_http_worker_supervisor(settings: Settings) -> HTTPWorkerSupervisor | None:
    if settings.http_workers == 1:
        return None
    from .http_workers.supervisor import HTTPWorkerSupervisor

    return HTTPWorkerSupervisor(settings)
