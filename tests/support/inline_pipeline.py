"""The pipeline without front ends: handlers, registry and scheduler over models in a thread.

    models = [ModelSettings(name="echo", implementation=Echo)]
    async with InlinePipeline(Settings(), models) as pipeline:
        pipeline.data_plane, pipeline.handlers

For tests of a front end.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.errors import ModelNotFound
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.parallel.executor import LoadedModel
from mlserver.parallel.in_process import InProcessExecutor
from mlserver.registry import ModelVersion, Registry
from mlserver.repository import ModelRepository
from mlserver.settings import ModelSettings, Settings


class StaticRepository(ModelRepository):
    """A repository of these models."""

    def __init__(self, models: Sequence[ModelSettings]) -> None:
        self.models = list(models)

    async def list(self) -> list[ModelSettings]:
        return self.models

    async def find(self, name: str) -> builtins.list[ModelSettings]:
        versions = [settings for settings in self.models if settings.name == name]
        if not versions:
            raise ModelNotFound(name)
        return versions


class InlinePipeline:
    """The data plane and repository handlers that a front end receives, with the models loaded.

    Args:
        concurrency: Requests that a model runs at once; the others wait in its queue.
    """

    def __init__(
        self, settings: Settings, models: Sequence[ModelSettings], concurrency: int = 64
    ) -> None:
        self._settings = settings
        self._models = models
        self._concurrency = concurrency
        self.metrics = ServerMetrics()
        self._executor = InProcessExecutor()
        registry = Registry(self._executor, self._scheduler, self.metrics, 5.0)
        self.data_plane = DataPlane(settings, registry)
        self.handlers = ModelRepositoryHandlers(StaticRepository(models), registry)

    def _scheduler(self, entry: ModelVersion, loaded: LoadedModel) -> Scheduler:
        limits = AdmissionPolicy(self._settings.max_queue_size, self._settings.request_timeout)
        policy, metrics = BatchPolicy(), entry.metrics
        return Scheduler(entry.name, loaded, policy, limits, metrics, self._concurrency)

    async def __aenter__(self) -> Self:
        await self._executor.start()
        await self.handlers.load_all(list(self._models))
        self.data_plane.accepting = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._executor.stop(5.0)
