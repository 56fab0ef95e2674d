"""What is loaded: names, versions, the default version, states and reasons, and each model's road.

A model version is loaded beside the one it replaces and takes its place when it is ready; requests that the old one has
begun are answered by it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import MLServerError, ModelNotFound, ModelNotReady, without_paths
from ..locations import with_resolved_folder
from ..logging import get_logger
from ..metrics import ServerMetrics, forget
from ..metrics.model_metrics import ModelMetrics
from ..metrics.model_statistics import ModelStatistics
from ..parallel.executor import Executor, LoadedModel
from ..pipeline import Stage
from ..security import code_policy
from ..settings import ModelSettings
from ..types import State
from .traffic_split import TrafficSplit, read_traffic_split

if TYPE_CHECKING:
    from ..model import MLModel

logger = get_logger()

LOAD_RETRY = 1.0  # seconds after which a request for a model that is loading may be sent again


class ModelPipeline(Stage, Protocol):
    """The stages between the data plane and one loaded model."""

    @property
    def max_batch_size(self) -> int:
        """Requests in one batch at most; 1 = they are not joined."""
        ...

    async def drained(self) -> None:
        """Wait until nothing waits and nothing is under way."""
        ...


PipelineBuilder = Callable[["ModelVersion", LoadedModel], ModelPipeline]


@dataclass(eq=False)
class ModelVersion:
    """One version of a model.

    Attributes:
        state: READY only while a loaded model stands behind it; see `ready` for whether it can answer at this moment.
        reason: Why it is not ready, if it failed.
        asked_split: How its settings want requests without a version to be shared among the versions.
        split: How they are shared now; only the default version has it.
        serial: Like no other entry's of this server, ever.
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
    # Of the settings, which a reload replaces by others of the same name and version.
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
        """Whether its first load is under way, so that nothing is there to answer yet."""
        return self.loaded is None and self.state is State.LOADING

    def usable(self) -> tuple[LoadedModel, ModelPipeline]:
        """The model and its road. Raises `ModelNotReady` if there are none."""
        if self.loaded is None or self.pipeline is None or not self.loaded.info.ready:
            reason = without_paths(self.reason) or None
            raise ModelNotReady(
                self.name, self.version, reason, LOAD_RETRY if self.loading else None
            )
        return self.loaded, self.pipeline


class ModelRegistryView:
    """Models by name and version, for those who look them up."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str | None, ModelVersion]] = {}
        self._defaults: dict[str, ModelVersion] = {}
        # Names that should have been loaded at start, but have no usable settings.
        self.missing: set[str] = set()
        # Grows with each change of what is found here, for those who keep what they derived from it.
        self.generation = 0

    def find(self, name: str, version: str | None = None) -> ModelVersion:
        """The entry of a version, or of the default version. Raises `ModelNotFound`."""
        if not version:
            entry = self._defaults.get(name)
            if entry is None:
                raise ModelNotFound(name)
            return entry
        try:
            return self._entries[name][version]
        except KeyError:
            raise ModelNotFound(name, version) from None

    def versions(self, name: str) -> list[ModelVersion]:
        return list(self._entries.get(name, {}).values())

    def entries(self) -> list[ModelVersion]:
        return [entry for versions in self._entries.values() for entry in versions.values()]

    def defaults(self) -> list[ModelVersion]:
        """The default version of every name, in the order in which the names came."""
        return list(self._defaults.values())

    async def drained(self) -> None:
        """Wait until no model has anything to do."""
        await asyncio.gather(
            *(entry.pipeline.drained() for entry in self.entries() if entry.pipeline is not None)
        )

    def _choose_default(self, name: str) -> None:
        self.generation += 1
        versions = self._entries.get(name)
        if not versions:
            self._defaults.pop(name, None)
            return
        candidates = [entry for entry in versions.values() if entry.loaded is not None] or list(
            versions.values()
        )
        asking = [entry for entry in candidates if entry.configured_split is not None]
        split = default_version(asking).configured_split if asking else None
        # A shadow is never what callers see, though it mostly is the newest.
        shown = [
            entry for entry in candidates if split is None or entry.version != split.shadow
        ] or candidates
        for entry in versions.values():
            entry.split = None
        default = self._defaults[name] = default_version(shown)
        default.split = split


def _nobody() -> None:
    """Nobody wants to hear of changes."""


class Registry(ModelRegistryView):
    """Loads and unloads models.

    Args:
        executor: Loads them.
        build_road: Makes the road of a loaded model.
        metrics: Has series for what is known here, and for nothing else.
        drain_timeout: Seconds that a replaced or unloaded version may take to answer what it has begun; None = no limit.
        changed: Called after each change.
    """

    def __init__(
        self,
        executor: Executor,
        build_pipeline: PipelineBuilder,
        metrics: ServerMetrics,
        drain_timeout: float | None,
        changed: Callable[[], None] = _nobody,
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._executor = executor
        self._build_pipeline = build_pipeline
        self._drain_timeout = drain_timeout
        self._changed = changed
        self._locks: dict[str, asyncio.Lock] = {}
        # No longer found by callers, but not yet gone: they answer what they have begun.
        self.retiring: list[ModelVersion] = []

    # -- changing --

    def announce(self, settings: ModelSettings) -> ModelVersion:
        """Make a model known as LOADING before its load begins, so that readiness waits for it."""
        known = self._entries.get(settings.name, {}).get(settings.version)
        if known is not None:
            return known
        self.missing.discard(settings.name)
        metrics = self._metrics.for_model(settings.name, settings.version)
        entry = ModelVersion(settings, metrics)
        self._metrics.add_model(settings.name, settings.version)
        self._entries.setdefault(settings.name, {})[settings.version] = entry
        self._choose_default(settings.name)
        return entry

    async def load(self, settings: ModelSettings, is_logged: bool = True) -> ModelVersion:
        """Load a version, beside the loaded one of the same name and version if there is one.

        Args:
            is_logged: A failure is logged; False if the caller says it.

        Raises:
            MLServerError: it could not be loaded. A loaded one of the same version goes on serving; else the entry stays,
                UNAVAILABLE, with the reason.
        """
        async with self._lock(settings.name):
            entry = self.announce(settings)
            entry.state, entry.reason = State.LOADING, ""
            self._changed()
            try:
                resolved = with_resolved_folder(settings)
                code_policy.rules().check(resolved)
                split = read_traffic_split(settings)
                loaded = await self._executor.load(resolved)
            except MLServerError as exc:
                entry.reason = exc.message
                self._has_failed(entry)
                if is_logged:
                    logger.error(
                        "Model '%s'%s could not be loaded: %s", entry.name, _of(entry), exc.message
                    )
                raise
            except BaseException as error:
                entry.reason = f"Its load ended with {type(error).__name__}"
                self._has_failed(entry)
                raise
            before, road_before = entry.loaded, entry.pipeline
            entry.settings = settings
            entry.configured_split = split
            entry.pipeline = self._build_pipeline(entry, loaded)
            entry.loaded = loaded
            entry.state = State.READY if loaded.info.ready else State.UNAVAILABLE
            entry.reason = "" if loaded.info.ready else "load() of the model returned False"
            self._choose_default(settings.name)
            self._changed()
            if entry.reason:
                logger.error("Model '%s'%s is not ready: %s", entry.name, _of(entry), entry.reason)
            else:
                logger.info(
                    "Loaded model '%s'%s in %.2f s",
                    entry.name,
                    _of(entry),
                    loaded.info.load_seconds,
                )
            if before is not None:
                with suppress(MLServerError):  # its `unload` raised: the log has it
                    await self._retire(before, road_before)
            return entry

    async def unload(self, name: str, version: str | None) -> None:
        """Unload one version: no new request reaches it, what it has begun is answered.

        Raises:
            ModelNotFound: there is no such version.
            MLServerError: the model's own `unload` raised; the version is gone all the same.
        """
        async with self._lock(name):
            entry = self._entries.get(name, {}).get(version)
            if entry is None:
                raise ModelNotFound(name, version)
            entry.state = State.UNLOADING
            del self._entries[name][version]
            if not self._entries[name]:
                del self._entries[name]
            self._choose_default(name)
            self._metrics.remove_model(name, version)
            forget(name, version or "")
            loaded, entry.loaded = entry.loaded, None
            self._changed()
            self.retiring.append(entry)
            try:
                if loaded is not None:
                    await self._retire(loaded, entry.pipeline)
            finally:
                self.retiring.remove(entry)
            logger.info("Unloaded model '%s'%s", name, _of(entry))

    def _has_failed(self, entry: ModelVersion) -> None:
        entry.state = State.UNAVAILABLE if entry.loaded is None else State.READY
        self._changed()

    async def _retire(self, loaded: LoadedModel, pipeline: ModelPipeline | None) -> None:
        try:
            async with asyncio.timeout(self._drain_timeout):
                if pipeline is not None:
                    await pipeline.drained()
        except TimeoutError:
            logger.warning(
                "A model is unloaded though requests still run: they took longer than 'drain_timeout'"
            )
        await loaded.unload()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def default_version(entries: list[ModelVersion]) -> ModelVersion:
    """The version that answers when none is asked for: the one without a version, else the highest.

    Versions are compared as numbers where both are numbers ("10" is above "2"), else as text ("v3" is above "v10").
    """
    best = entries[0]
    for entry in entries[1:]:
        if best.version is None:
            return best
        if entry.version is None or _above(entry.version, best.version):
            best = entry
    return best


def _above(one: str, other: str) -> bool:
    try:
        return int(one) > int(other)
    except ValueError:
        return one > other


def _of(entry: ModelVersion) -> str:
    return f" version '{entry.version}'" if entry.version else ""


# -- names of MLServer 1.x --

MultiModelRegistry = Registry


class SingleModelRegistry:
    """The versions of one model."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    def get_model(self, version: str | None = None) -> ModelVersion:
        """One version, or the default one. Raises `ModelNotFound`."""
        return self._registry.find(self._name, version)

    def get_models(self) -> list[ModelVersion]:
        return self._registry.versions(self._name)


def model_initialiser(model_settings: ModelSettings) -> MLModel:
    """The model that settings describe, made in this process and not loaded."""
    implementation: type[MLModel] = model_settings.implementation
    return implementation(model_settings)
