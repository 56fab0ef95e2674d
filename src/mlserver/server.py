"""Builds the road from the settings, in the order of travel seen from its end; starts it, and stops it.

Executor, then the registry with a road per model, then the data plane, then the front ends. Nothing else puts stages
together, and nothing is attached to a stage afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import trust
from .errors import MLServerError
from .execution.executor import Executor, LoadedModel
from .handlers import DataPlane, ModelRepositoryHandlers
from .handlers.access import Access
from .handlers.cache import CachedRoad, LocalCache
from .handlers.following import Following
from .handlers.telemetry import Telemetry
from .logging import configure_logger, get_logger
from .metrics.road import RoadMetrics
from .registry import Entry, Registry, Road
from .repository import ModelRepositoryFactory
from .scheduling.limits import Limits
from .scheduling.policy import BatchPolicy
from .scheduling.scheduler import Scheduler
from .settings import ModelSettings, Settings

logger = get_logger()

# Requests joined at most when a row-wise model asks for no particular size.
AUTOMATIC_BATCH = 256
# Requests of a model without batching that one worker works on at once: models that wait for I/O overlap them.
CONCURRENCY = 64
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name))


class NothingLoaded(MLServerError):
    """There were models to load, and not one of them could be."""


class MLServer:
    """A server: made from settings inside of a running event loop, started once, stopped once."""

    def __init__(self, settings: Settings) -> None:
        configure_logger(settings)
        trust.apply(settings)
        self._settings = settings
        self._metrics = RoadMetrics(settings.metrics_rest_server_prefix)
        self._telemetry = Telemetry(self._metrics)
        caches = settings.cache_enabled and settings.cache_size > 0
        self._cache = LocalCache(settings.cache_size, settings.cache_max_bytes) if caches else None
        self._tracing = _tracing(settings)
        self._executor = _executor(settings)
        self._registry = Registry(self._executor, self._build_road, self._metrics, settings.drain_timeout)
        self._following = Following(self._registry, self._metrics)
        self._repository = ModelRepositoryFactory.resolve_model_repository(settings)
        self._handlers = ModelRepositoryHandlers(self._repository, self._registry)
        self._data_plane = DataPlane(settings, self._registry, self._telemetry)
        self._front_ends: list[Any] = []
        self._kafka: Any = None
        self._stop_asked = asyncio.Event()
        self._end_now = asyncio.Event()
        self._started_at = time.monotonic()

    # -- the road --

    def _build_road(self, entry: Entry, loaded: LoadedModel) -> Road:
        settings = entry.settings
        self._following.watch(entry, loaded)
        for route in loaded.info.routes:
            if route.wire:
                import_module(route.wire)  # now, rather than within the first request
        policy = batch_policy(settings, loaded.info.row_wise)
        limits = Limits(
            settings.max_queue_size or self._settings.max_queue_size,
            settings.request_timeout or self._settings.request_timeout,
        )
        joins_while_busy = policy.max_requests > 1 and not policy.max_wait
        slots = _Slots(loaded, 1 if joins_while_busy else CONCURRENCY)
        scheduler = Scheduler(entry.name, loaded, policy, limits, self._telemetry.meter(entry), slots)
        road: Road = scheduler
        if self._cache is not None and settings.cache_enabled:
            road = CachedRoad(road, self._cache, entry.name, entry.version, self._telemetry.cache_counter(entry))
        if self._tracing is not None:
            from .handlers.traced import TracedRoad

            road = TracedRoad(road, self._tracing, entry.name, entry.version)
        return road

    def _build_front_ends(self) -> list[Any]:
        """Front ends, bound to their ports already, so that a taken port is known before a model is loaded."""
        from .grpc.server import GRPCServer
        from .rest.front_end import RESTServer

        access = Access(self._settings)
        front_ends: list[Any] = [RESTServer(self._settings, self._data_plane, self._handlers, self._metrics, access)]
        front_ends.append(GRPCServer(self._settings, self._data_plane, self._handlers, self._metrics, access))
        if self._settings.metrics_endpoint:
            from .rest.front_end import MetricsFrontEnd

            front_ends.append(MetricsFrontEnd(self._settings, self._metrics, access))
        if self._settings.kafka_enabled:
            from .kafka import KafkaServer

            self._kafka = KafkaServer(self._settings, self._data_plane, access)
        return front_ends

    # -- the life --

    async def start(self, models_settings: Sequence[ModelSettings] = ()) -> None:
        """Serve until `stop` or a signal.

        Args:
            models_settings: Models to load; by default those of the repository, if `load_models_at_startup`.

        Raises:
            MLServerError: a port is taken, a worker cannot start, or not one of the models could be loaded.
        """
        restore = self._capture_signals()
        try:
            models = list(models_settings) or await self._models_at_startup()
            starting = asyncio.create_task(self._executor.start())
            try:
                self._front_ends = self._build_front_ends()
                for front_end in self._front_ends:
                    await front_end.start()
            finally:
                await starting
            await self._load(models)
            if self._kafka is not None and not self._stop_asked.is_set():
                # Messages can wait; taken before there are models, they would all be refused.
                self._front_ends.append(self._kafka)
                await self._kafka.start()
                logger.info("Ready: %s", self._kafka.address)
            await self._stop_asked.wait()
        finally:
            await self._shut_down()
            restore()

    async def stop(self, sig: int | None = None) -> None:
        """Ask the server to stop: `start` returns when it has. A second time: without waiting for requests."""
        if self._stop_asked.is_set():
            self._end_now.set()
        self._data_plane.accepting = False
        self._stop_asked.set()

    async def _models_at_startup(self) -> list[ModelSettings]:
        return list(await self._repository.list()) if self._settings.load_models_at_startup else []

    async def _load(self, models: list[ModelSettings]) -> None:
        loading = asyncio.create_task(self._handlers.load_all(models))
        asked = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait((loading, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not loading.done():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        loaded = await loading
        problems = self._repository.problems if self._settings.load_models_at_startup else {}
        failed = [f"'{entry.name}': {entry.reason}" for entry in self._registry.entries() if entry.reason]
        failed += [f"'{name}': {reason}" for name, reason in problems.items()]
        self._registry.missing.update(problems)
        if failed and not loaded:
            raise NothingLoaded(f"No model could be loaded; {failed[0]}")
        # What is there now stays: the collector need not look at it again, nor requests wait until it has.
        gc.freeze()
        self._data_plane.accepting = True
        self._say_ready(failed)

    def _say_ready(self, failed: list[str]) -> None:
        names = ", ".join(_label(entry) for entry in self._registry.entries() if entry.ready) or "none"
        addresses = ", ".join(front_end.address for front_end in self._front_ends)
        seconds = time.monotonic() - self._started_at
        logger.info("Ready in %.2f s: %s; models: %s", seconds, addresses, names)
        if failed:
            logger.error("Not ready: %d of the models failed to load: %s", len(failed), "; ".join(failed))

    async def _shut_down(self) -> None:
        """Drain, then close from the front to the back."""
        self._data_plane.accepting = False
        if self._kafka is not None:
            self._kafka.cease()
        await self._following.stop()
        grace = self._settings.drain_timeout
        draining = asyncio.create_task(self._registry.drained())
        hurry = asyncio.create_task(self._end_now.wait())
        done, _ = await asyncio.wait((draining, hurry), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if draining not in done:
            logger.warning("Stopping although requests still run")
        for task in (draining, hurry):
            task.cancel()
        closing = 1.0 if draining in done else 0.1
        await asyncio.gather(*(front_end.stop(closing) for front_end in self._front_ends))
        await self._executor.stop(self._settings.parallel_workers_timeout if draining in done else 0.1)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown)

    def _capture_signals(self) -> Any:
        """Signals ask for the end; what handled them before does so again afterwards."""
        loop = asyncio.get_running_loop()
        before = {}
        for number in SIGNALS:
            before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, lambda: loop.create_task(self.stop()))

        def restore() -> None:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

        return restore


class _Slots:
    """As many as the model can run at once; follows its live workers."""

    def __init__(self, loaded: LoadedModel, per_worker: int) -> None:
        self._loaded = loaded
        self._per_worker = per_worker

    def free(self) -> int:
        return self._loaded.capacity * self._per_worker


def batch_policy(settings: ModelSettings, row_wise: bool) -> BatchPolicy:
    """What the model's settings ask for; unset, row-wise models join what arrives while they are busy."""
    if settings.max_batch_size > 1 and settings.max_batch_time > 0:
        return BatchPolicy(settings.max_batch_size, settings.max_batch_time)
    if row_wise and settings.max_batch_size != 1:
        return BatchPolicy(settings.max_batch_size or AUTOMATIC_BATCH)
    return BatchPolicy()


def _tracing(settings: Settings) -> Any:
    if not settings.tracing_server:
        return None
    from .tracing import get_tracer_provider, publish

    provider = get_tracer_provider(settings)
    assert provider is not None
    publish(provider)
    return provider


def _executor(settings: Settings) -> Executor:
    if settings.parallel_workers > 0:
        from .execution.pools import PoolExecutor

        return PoolExecutor(settings)
    from .execution.inline import InlineExecutor

    return InlineExecutor(settings.load_timeout)


def _label(entry: Entry) -> str:
    return f"{entry.name} ({entry.version})" if entry.version else entry.name
