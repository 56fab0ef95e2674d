"""Assembles the pipeline stages and front ends from the settings.

Each process with front ends has one factory: the server (`server`) and the HTTP workers
(`http_workers`). Stages are assembled only here, and nothing is attached to a stage afterwards.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .batching.admission import AdmissionPolicy
from .batching.queue import BatchPolicy
from .batching.scheduler import Scheduler
from .cache.response_cache import CacheStage, LocalCache
from .handlers import DataPlane
from .handlers.model_repository import ReadMonitoring, RepositoryControl
from .metrics.endpoint import MetricsPage
from .metrics.server_metrics import ServerMetrics
from .parallel.executor import Executor, LoadedModel, WorkerListener
from .registry import ModelPipeline, ModelVersion
from .security.authorization import Authorizer
from .settings import ModelSettings, Settings

if TYPE_CHECKING:
    from .parallel.processes.template_process import TemplateProcess
    from .payload_log import PayloadLogs

# Requests per batch at most, for row-wise models without the setting `max_batch_size`.
DEFAULT_BATCH_SIZE = 256


class PipelineFactory:
    """Builds the pipeline of each model, and holds what all pipelines of a process share.

    Args:
        settings: Settings of the server.
        process_index: Position of this process among those that serve HTTP; 0 = the server.

    Attributes:
        metrics: The server's own metrics.
        authorizer: Authenticates and authorizes requests in front ends.
    """

    def __init__(self, settings: Settings, process_index: int = 0) -> None:
        self._settings = settings
        self.metrics = ServerMetrics(settings.metrics_rest_server_prefix)
        self.authorizer = Authorizer(settings)
        self._cache: LocalCache | None = None
        if settings.cache_enabled and settings.cache_size > 0:
            self._cache = LocalCache(settings.cache_size, settings.cache_max_bytes)
        self._tracing = _create_tracer_provider(settings)
        self._process_index = process_index
        self._payload_logs: PayloadLogs | None = None

    def check_settings(self, settings: ModelSettings) -> None:
        """Check the parts of a model's settings that its pipeline needs. Raises `SettingsError`."""
        payload_logs = self._find_payload_logs(settings)
        if payload_logs is not None:
            payload_logs.check(settings)

    def _find_payload_logs(self, settings: ModelSettings) -> PayloadLogs | None:
        """Return the payload logs if a model may have one; their modules are imported then."""
        if self._settings.payload_log is None and settings.payload_log is None:
            return None
        if self._payload_logs is None:
            from .payload_log import PayloadLogs

            self._payload_logs = PayloadLogs(self._settings, self._process_index)
        return self._payload_logs

    def build_pipeline(self, entry: ModelVersion, loaded: LoadedModel) -> ModelPipeline:
        """Return the stages between the data plane and a loaded model."""
        settings = entry.settings
        for route in loaded.info.routes:
            if route.wire:
                import_module(route.wire)  # at load, so that the first request does not pay for it
        policy = batch_policy(settings, loaded.info.row_wise)
        limits = AdmissionPolicy(
            settings.max_queue_size or self._settings.max_queue_size,
            settings.request_timeout or self._settings.request_timeout,
        )
        # Of a row-wise model one batch runs at a time: what arrives meanwhile is the next batch.
        joins_while_busy = policy.max_requests > 1 and not policy.max_wait
        is_limited = settings.max_concurrency is not None or not joins_while_busy
        runs_per_worker = loaded.info.max_concurrency if is_limited else 1
        pipeline: ModelPipeline = Scheduler(
            entry.name, loaded, policy, limits, entry.metrics, runs_per_worker
        )
        if self._cache is not None and settings.cache_enabled:
            pipeline = CacheStage(
                pipeline,
                self._cache,
                entry.name,
                entry.version,
                entry.metrics.cache_lookup,
            )
        if self._tracing is not None:
            from .handlers.tracing_stage import TracingStage

            pipeline = TracingStage(pipeline, self._tracing, entry.name, entry.version)
        payload_logs = self._find_payload_logs(settings)
        if payload_logs is not None:
            pipeline = payload_logs.add_stage(pipeline, entry, loaded)
        return pipeline

    def build_front_ends(
        self,
        settings: Settings,
        data_plane: DataPlane,
        repository: RepositoryControl,
        metrics_page: MetricsPage | None,
        read_monitoring: ReadMonitoring,
    ) -> list[Any]:
        """Return the REST and gRPC servers.

        Both are bound to their ports, so that a port in use fails before models load.

        Args:
            metrics_page: Renders the metrics of all processes; None = no metrics endpoint.
            read_monitoring: Returns a monitoring document of all processes by its name.
        """
        from .grpc.server import GRPCServer
        from .rest.front_end import RESTServer

        parts = settings, data_plane, repository, self.metrics, self.authorizer
        rest = RESTServer(*parts, metrics_page=metrics_page, read_monitoring=read_monitoring)
        return [rest, GRPCServer(*parts)]

    async def close(self) -> None:
        """Write the remaining events of payload logs, and send the remaining spans."""
        await asyncio.gather(self._close_payload_logs(), self._close_tracing())

    async def _close_payload_logs(self) -> None:
        if self._payload_logs is not None:
            await self._payload_logs.close()

    async def _close_tracing(self) -> None:
        if self._tracing is not None:
            from .tracing import get_collector, shut_down

            await shut_down(self._tracing, str(get_collector(self._settings)))


def import_front_ends() -> None:
    """Import the modules of the front ends, a third of the server's imports. Blocks."""
    from .grpc import server  # noqa: F401
    from .rest import front_end  # noqa: F401


def batch_policy(settings: ModelSettings, row_wise: bool) -> BatchPolicy:
    """Return the batching of a model.

    By default, row-wise models batch the requests that arrive while they are busy.
    """
    if settings.max_batch_size > 1 and settings.max_batch_time > 0:
        return BatchPolicy(settings.max_batch_size, settings.max_batch_time)
    if row_wise and settings.max_batch_size != 1:
        return BatchPolicy(settings.max_batch_size or DEFAULT_BATCH_SIZE)
    return BatchPolicy()


def _create_tracer_provider(settings: Settings) -> Any:
    from .tracing import get_tracer_provider, set_global_provider

    provider = get_tracer_provider(settings)
    if provider is not None:
        set_global_provider(provider)
    return provider


def create_executor(
    settings: Settings,
    http_workers: WorkerListener | None,
    template: TemplateProcess | None,
) -> Executor:
    """Return the executor of the setting `engine`; no other code depends on the engine.

    Args:
        http_workers: Notified of changes of the workers; None = there are no HTTP workers.
        template: A template process that is started already.
    """
    if settings.engine == "ray":
        from .parallel.ray.executor import RayExecutor

        return RayExecutor(settings)
    if settings.parallel_workers > 0:
        from .parallel.pool_manager import PoolExecutor

        return PoolExecutor(settings, http_workers, template)
    from .parallel.in_process import InProcessExecutor

    return InProcessExecutor(settings)
