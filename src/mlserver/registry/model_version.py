"""A version of a model: its settings, state, loaded model and pipeline; the default version."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ModelNotReady, remove_paths
from ..metrics.model_metrics import ModelMetrics
from ..metrics.model_statistics import ModelStatistics
from ..parallel.executor import LoadedModel
from ..pipeline import Stage
from ..settings import ModelSettings
from ..types import State
from .traffic_split import TrafficSplit

LOAD_RETRY = 1.0  # `Retry-After` in seconds while a model is loading


class ModelPipeline(Stage, Protocol):
    """The stages between the data plane and one loaded model."""

    @property
    def max_batch_size(self) -> int:
        """Requests per batch at most; 1 = no batching."""
        ...

    @property
    def open_requests(self) -> tuple[int, int]:
        """Requests in the queue; requests, batches, streams and routes that are running."""
        ...

    def count_route(self) -> AbstractContextManager[None]:
        """Count a call of one of the model's custom routes as in flight during the block."""
        ...

    async def drained(self) -> None:
        """Wait until the queue is empty and nothing is in flight."""
        ...


class OuterStage:
    """Base of a stage around a pipeline, whose batches, queue and end are the pipeline's."""

    def __init__(self, pipeline: ModelPipeline) -> None:
        self._pipeline = pipeline

    @property
    def max_batch_size(self) -> int:
        return self._pipeline.max_batch_size

    @property
    def open_requests(self) -> tuple[int, int]:
        return self._pipeline.open_requests

    def count_route(self) -> AbstractContextManager[None]:
        return self._pipeline.count_route()

    async def drained(self) -> None:
        await self._pipeline.drained()


PipelineBuilder = Callable[["ModelVersion", LoadedModel], ModelPipeline]


@dataclass(eq=False)
class ModelVersion:
    """One version of a model.

    Attributes:
        metrics: Records its requests.
        state: READY only while a model is loaded; `ready` says whether it can run a request now.
        reason: Why it is not ready, if loading failed.
        configured_split: The traffic split of its settings.
        split: The traffic split in effect; only the default version has one.
        serial: Unique among all entries since the server's start.
    """

    settings: ModelSettings
    metrics: ModelMetrics
    state: State = State.LOADING
    reason: str = ""
    loaded: LoadedModel | None = None
    pipeline: ModelPipeline | None = None
    configured_split: TrafficSplit | None = None
    split: TrafficSplit | None = None
    serial: int = field(default_factory=itertools.count(1).__next__)
    # Copies from `settings`, which a reload replaces by settings of the same name and version.
    name: str = field(init=False)
    version: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.version = self.settings.name, self.settings.version

    @property
    def statistics(self) -> ModelStatistics:
        """Its requests in the terms of the statistics extension."""
        return self.metrics.statistics

    @property
    def ready(self) -> bool:
        return self.loaded is not None and self.loaded.info.ready and self.loaded.available

    @property
    def loading(self) -> bool:
        """Whether it is loading for the first time, so that no request can run yet."""
        return self.loaded is None and self.state is State.LOADING

    def usable(self) -> tuple[LoadedModel, ModelPipeline]:
        """Return the model and its pipeline. Raises `ModelNotReady` if it is not loaded."""
        if self.loaded is None or self.pipeline is None or not self.loaded.info.ready:
            reason = remove_paths(self.reason) or None
            raise ModelNotReady(
                self.name, self.version, reason, LOAD_RETRY if self.loading else None
            )
        return self.loaded, self.pipeline


def default_version(entries: list[ModelVersion]) -> ModelVersion:
    """Return the version for requests without one.

    The entry without a version, otherwise the highest version.

    Versions are compared as numbers if both are numbers ("10" > "2"), otherwise as text ("v3" >
    "v10").
    """
    best = entries[0]
    for entry in entries[1:]:
        if best.version is None:
            return best
        if entry.version is None or _is_higher(entry.version, best.version):
            best = entry
    return best


def _is_higher(version: str, other: str) -> bool:
    try:
        return int(version) > int(other)
    except ValueError:
        return version > other
