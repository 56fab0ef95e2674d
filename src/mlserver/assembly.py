"""Puts the stages of the road together from the settings: the same in every process that has front ends.

Who owns the models (and with them the data plane) is elsewhere: `server`, and `http_workers` for its further processes. Nothing
else puts stages together, and nothing is attached to a stage afterwards.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from .batching.admission import AdmissionPolicy
from .batching.queue import BatchPolicy
from .batching.scheduler import Scheduler
from .cache.response_cache import CacheStage, LocalCache
from .handlers import DataPlane
from .handlers.model_repository import RepositoryControl
from .metrics.endpoint import MetricsPage
from .metrics.server_metrics import ServerMetrics
from .parallel.executor import LoadedModel
from .registry import ModelPipeline, ModelVersion
from .security.authorization import Authorizer
from .settings import ModelSettings, Settings

# Requests joined at most when a row-wise model asks for no particular size.
AUTOMATIC_BATCH = 256
# Requests of a model without batching that one worker works on at once: models that wait for I/O overlap them.
CONCURRENCY = 64


class PipelineFactory:
    """What all roads of one process share, and the plan that they are built after.

    Args:
        settings: The server's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = ServerMetrics(settings.metrics_rest_server_prefix)
        self.access = Authorizer(settings)
        caches = settings.cache_enabled and settings.cache_size > 0
        self._cache = LocalCache(settings.cache_size, settings.cache_max_bytes) if caches else None
        self._tracing = _tracing(settings)

    def build_pipeline(self, entry: ModelVersion, loaded: LoadedModel) -> ModelPipeline:
        """The stages between the data plane and a loaded model."""
        settings = entry.settings
        for route in loaded.info.routes:
            if route.wire:
                import_module(route.wire)  # now, rather than within the first request
        policy = batch_policy(settings, loaded.info.row_wise)
        limits = AdmissionPolicy(
            settings.max_queue_size or self._settings.max_queue_size,
            settings.request_timeout or self._settings.request_timeout,
        )
        joins_while_busy = policy.max_requests > 1 and not policy.max_wait
        runs_per_worker = 1 if joins_while_busy else CONCURRENCY
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
        return pipeline

    def build_front_ends(
        self,
        settings: Settings,
        data_plane: DataPlane,
        repository: RepositoryControl,
        metrics_page: MetricsPage | None,
    ) -> list[Any]:
        """REST and gRPC, bound to their ports already, so that a taken port is known before a model is loaded.

        Args:
            metrics_page: Gives the page with the sums of all processes; None = there is none.
        """
        from .grpc.server import GRPCServer
        from .rest.front_end import RESTServer

        parts = settings, data_plane, repository, self.metrics, self.access
        return [RESTServer(*parts, metrics_page=metrics_page), GRPCServer(*parts)]

    async def close(self) -> None:
        """Send off what has not been sent yet."""
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown)


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
