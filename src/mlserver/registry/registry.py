"""The model registry: versions of models, their states and pipelines, loading and unloading.

A model version is loaded while the one it replaces still serves, and replaces it when it is ready.
Requests that have started finish on the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from ..errors import MLServerError, ModelNotFound
from ..locations import with_resolved_folder
from ..logging import get_logger
from ..metrics import ServerMetrics, forget
from ..parallel.executor import Executor, LoadedModel
from ..security import code_policy
from ..settings import ModelSettings
from ..types import State
from .model_version import ModelPipeline, ModelVersion, PipelineBuilder, default_version
from .pending_loads import LoadCancelled, PendingLoad, PendingLoads
from .traffic_split import read_traffic_split

logger = get_logger()


class ModelRegistryView:
    """Models by name and version: the read side of the registry.

    Attributes:
        missing: Names of models without usable settings, which could not be loaded at startup.
        generation: Incremented whenever loaded models (and therefore their routes) change.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[str | None, ModelVersion]] = {}
        self._defaults: dict[str, ModelVersion] = {}
        self.missing: set[str] = set()
        self.generation = 0

    def find(self, name: str, version: str | None = None) -> ModelVersion:
        """Return a version, or the default version. Raises `ModelNotFound`."""
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
        """Return the default version of every name, in the order in which the names were added."""
        return list(self._defaults.values())

    async def drained(self) -> None:
        """Wait until no model has queued or running requests."""
        await asyncio.gather(
            *(entry.pipeline.drained() for entry in self.entries() if entry.pipeline is not None)
        )

    def _choose_default(self, name: str) -> None:
        self.generation += 1
        versions = self._entries.get(name)
        if not versions:
            self._defaults.pop(name, None)
            return
        candidates = [entry for entry in versions.values() if entry.loaded is not None]
        candidates = candidates or list(versions.values())
        with_split = [entry for entry in candidates if entry.configured_split is not None]
        split = default_version(with_split).configured_split if with_split else None
        if split is not None:
            # A shadow version is mostly the newest one, and must not become the default.
            not_shadow = [entry for entry in candidates if entry.version != split.shadow]
            candidates = not_shadow or candidates
        for entry in versions.values():
            entry.split = None
        default = self._defaults[name] = default_version(candidates)
        default.split = split


def _ignore_change() -> None:
    """Default of `Registry`'s argument `changed`."""


def _accept_settings(settings: ModelSettings) -> None:
    """Default of `Registry`'s argument `check_settings`."""


class Registry(ModelRegistryView):
    """Loads and unloads models.

    Args:
        executor: Loads models.
        build_pipeline: Builds the pipeline of a loaded model.
        metrics: Has series for the models of this registry only.
        drain_timeout: Seconds for the running requests of a replaced or unloaded version; None = no
            limit.
        changed: Called after each change.
        check_settings: Raises `SettingsError` for settings of a model that cannot be served; called
            before its load.

    Attributes:
        retiring: Unloaded versions whose requests are still running.
    """

    def __init__(
        self,
        executor: Executor,
        build_pipeline: PipelineBuilder,
        metrics: ServerMetrics,
        drain_timeout: float | None,
        changed: Callable[[], None] = _ignore_change,
        check_settings: Callable[[ModelSettings], None] = _accept_settings,
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._executor = executor
        self._build_pipeline = build_pipeline
        self._drain_timeout = drain_timeout
        self._changed = changed
        self._check_settings = check_settings
        # A lock lives as long as a load or unload of the name that has it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pending = PendingLoads()
        self.retiring: list[ModelVersion] = []

    # -- changing --

    def announce(self, settings: ModelSettings) -> ModelVersion:
        """Add a model in state LOADING before its load starts, and readiness waits for it."""
        existing = self._entries.get(settings.name, {}).get(settings.version)
        if existing is not None:
            return existing
        self.missing.discard(settings.name)
        metrics = self._metrics.for_model(settings.name, settings.version)
        entry = ModelVersion(settings, metrics)
        self._metrics.add_model(settings.name, settings.version)
        self._entries.setdefault(settings.name, {})[settings.version] = entry
        self._choose_default(settings.name)
        return entry

    async def load(self, settings: ModelSettings, is_logged: bool = True) -> ModelVersion:
        """Load a version.

        A loaded one of the same name and version serves until the new one is ready.

        Args:
            is_logged: Whether a failure is logged; False if the caller reports it.

        Raises:
            LoadCancelled: the version was unloaded meanwhile.
            MLServerError: loading failed. A loaded one of the same version keeps serving; otherwise
                the entry remains in the registry, UNAVAILABLE and with the reason.
        """
        with self._pending.add(settings.name, settings.version) as pending:
            async with self._lock(settings.name):
                pending.check()
                entry = self.announce(settings)
                await self._load(entry, settings, is_logged, pending)
                return entry

    async def reload(self, entry: ModelVersion) -> bool:
        """Load a version again; return False if it was unloaded, and nothing was loaded.

        Raises:
            MLServerError: loading failed. The version that is loaded keeps serving.
        """
        with self._pending.add(entry.name, entry.version) as pending:
            async with self._lock(entry.name):
                if self._entries.get(entry.name, {}).get(entry.version) is not entry:
                    return False
                try:
                    await self._load(entry, entry.settings, True, pending)
                except LoadCancelled:
                    return False
                return True

    async def _load(
        self, entry: ModelVersion, settings: ModelSettings, is_logged: bool, pending: PendingLoad
    ) -> None:
        """Load a version whose lock is held. Raises only `MLServerError` and cancellations."""
        entry.state, entry.reason = State.LOADING, ""
        self._changed()
        version = _format_version(entry)
        replaced, replaced_pipeline = entry.loaded, entry.pipeline
        try:
            async with pending.run():
                await self._load_with_pipeline(entry, settings)
        except LoadCancelled:
            logger.info("Model '%s'%s: load cancelled by an unload", entry.name, version)
            self._end_load(entry)
            raise
        except Exception as error:
            load_error = _to_load_error(entry, error)
            entry.reason = load_error.message
            self._has_failed(entry)
            if is_logged:
                logger.error(
                    "Model '%s'%s could not be loaded: %s",
                    entry.name,
                    version,
                    load_error.message,
                )
            raise load_error from error.__cause__
        except BaseException as error:
            entry.reason = f"Loading model '{entry.name}' was stopped by {type(error).__name__}"
            self._has_failed(entry)
            raise
        self._has_loaded(entry, is_logged)
        if replaced is not None:
            try:
                await self._retire(entry.name, replaced, replaced_pipeline)
            except MLServerError:  # its `unload` raised, and the error is logged
                pass
            except Exception:
                logger.exception("Model '%s': the version before could not be unloaded", entry.name)

    async def _load_with_pipeline(self, entry: ModelVersion, settings: ModelSettings) -> None:
        """Load the model, build its pipeline, and set both; set nothing if one of them fails."""
        resolved = with_resolved_folder(settings)
        code_policy.current_policy().check(resolved)
        self._check_settings(settings)
        split = read_traffic_split(settings)
        loaded = await self._executor.load(resolved)
        before, entry.settings = entry.settings, settings
        try:
            entry.pipeline = self._build_pipeline(entry, loaded)
        except BaseException:
            entry.settings = before
            with suppress(MLServerError):
                await loaded.unload()
            raise
        entry.configured_split, entry.loaded = split, loaded

    def _has_loaded(self, entry: ModelVersion, is_logged: bool) -> None:
        assert entry.loaded is not None
        info = entry.loaded.info
        entry.metrics.loaded(info.load_seconds)
        entry.state = State.READY if info.ready else State.UNAVAILABLE
        entry.reason = "" if info.ready else "load() of the model returned False"
        self._choose_default(entry.name)
        self._changed()
        if not entry.reason:
            _log_loaded(entry, info.load_seconds)
        elif is_logged:
            version = _format_version(entry)
            logger.error("Model '%s'%s is not ready: %s", entry.name, version, entry.reason)

    async def unload(self, name: str, version: str | None) -> None:
        """Unload one version. It gets no new requests, and running requests finish.

        Loads of it that wait or run are cancelled, unless the executor does not allow that.

        Raises:
            ModelNotFound: there is no such version.
            MLServerError: the model's own `unload` raised; the version is removed all the same.
        """
        if self._executor.can_cancel_load:
            self._pending.cancel(name, version)
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
                    await self._retire(name, loaded, entry.pipeline)
            finally:
                self.retiring.remove(entry)
            logger.info("Unloaded model '%s'%s", name, _format_version(entry))

    def cancel_loads(self, name: str) -> None:
        """Cancel the loads of all versions of a model, before they are unloaded.

        Else the load of a version would begin when the one before it is cancelled.
        """
        if self._executor.can_cancel_load:
            self._pending.cancel_all(name)

    def _has_failed(self, entry: ModelVersion) -> None:
        entry.metrics.load_failed()
        self._end_load(entry)

    def _end_load(self, entry: ModelVersion) -> None:
        """Set the state after a load that has loaded nothing."""
        entry.state = State.UNAVAILABLE if entry.loaded is None else State.READY
        self._changed()

    async def _retire(self, name: str, loaded: LoadedModel, pipeline: ModelPipeline | None) -> None:
        try:
            async with asyncio.timeout(self._drain_timeout):
                if pipeline is not None:
                    await pipeline.drained()
        except TimeoutError:
            logger.warning(
                "Model '%s': unloaded while requests are running: they exceeded 'drain_timeout'",
                name,
            )
        await loaded.unload()

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


def _to_load_error(entry: ModelVersion, error: Exception) -> MLServerError:
    """Return the error of a load. The log has the traceback of one that is not `MLServerError`."""
    if isinstance(error, MLServerError):
        return error
    logger.error("Model '%s': unexpected exception in its load", entry.name, exc_info=error)
    return MLServerError(f"Model {entry.name} failed to load: {type(error).__name__}: {error}", 500)


def _log_loaded(entry: ModelVersion, seconds: float) -> None:
    runtime = entry.settings.implementation_
    fields = {
        "event": "model_loaded",
        "model": entry.name,
        "version": entry.version,
        "runtime": runtime,
        "seconds": round(seconds, 3),
    }
    logger.info(
        "Loaded model '%s'%s in %.2f s (%s)",
        entry.name,
        _format_version(entry),
        seconds,
        runtime,
        extra={"fields": fields},
    )


def _format_version(entry: ModelVersion) -> str:
    return f" version '{entry.version}'" if entry.version else ""
