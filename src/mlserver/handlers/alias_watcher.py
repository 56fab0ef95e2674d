"""Polls the addresses of models, and reloads a model when its address points to another version.

`parameters.extra.follow` is the polling interval in seconds. The worker that runs the model
resolves the address (`MLModel.resolve_source`), because this process does not import a registry's
client. The old version serves until the new one is ready; if loading the new one fails, the error
is logged and the old one keeps serving.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..errors import MLServerError
from ..logging import get_logger
from ..parallel.executor import LoadedModel
from ..parallel.model_source import get_source
from ..registry import ModelVersion, Registry
from ..settings import ModelSettings

logger = get_logger()

RESOLVE_TIMEOUT = 60.0  # seconds to resolve an alias
MAX_RETRY_INTERVAL = 300.0  # seconds between two polls while the registry cannot be reached
FAILED_VERSION_RETRY = 600.0  # seconds before a version that failed to load is loaded again


@dataclass
class AliasState:
    """What polling one address has found. Times are seconds since the epoch; None = never.

    Attributes:
        address: The configured URI, an alias.
        interval: Seconds between two polls.
        checked: Time of the last poll that the model registry answered.
        moved: Time of the last change of the version.
        failure: Why the last poll or the last reload failed; "" = it did not.
        failed: Time of that failure.
    """

    address: str
    interval: float
    checked: float | None = None
    moved: float | None = None
    failure: str = ""
    failed: float | None = None

    def set_failure(self, message: str) -> None:
        self.failure, self.failed = message, time.time()


class AliasWatcher:
    """Polls the aliases of models with the setting `follow`: one task per model until unload.

    Attributes:
        states: What polling has found, of the models with a task.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.states: dict[ModelVersion, AliasState] = {}
        self._tasks: dict[ModelVersion, asyncio.Task[None]] = {}

    def watch(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """Start polling for a loaded model with the setting `follow`, unless a task does so."""
        interval = read_interval(entry.settings)
        if entry in self._tasks or interval is None:
            return
        if get_source(loaded.info) in (None, _get_uri(entry.settings)):
            logger.warning(
                "Model '%s': 'follow' ignored, the URI is already a fixed version", entry.name
            )
            return
        self.states[entry] = AliasState(_get_uri(entry.settings), interval)
        entry.metrics.followed()
        task = asyncio.get_running_loop().create_task(self._watch(entry))
        self._tasks[entry] = task
        task.add_done_callback(lambda _: self._forget(entry))

    def _forget(self, entry: ModelVersion) -> None:
        self._tasks.pop(entry, None)
        self.states.pop(entry, None)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, entry: ModelVersion) -> None:
        interval = read_interval(entry.settings)
        state = self.states[entry]
        failed: str | None = None
        failed_at = 0.0
        while interval is not None:
            await asyncio.sleep(interval)
            configured, loaded = read_interval(entry.settings), entry.loaded
            if configured is None or loaded is None:
                return
            try:
                resolved = await _resolve(loaded, _get_uri(entry.settings))
            except MLServerError as error:
                state.set_failure(error.message)
                interval = min(2 * interval, max(MAX_RETRY_INTERVAL, configured))
                logger.warning(
                    "Model '%s': %s; trying again in %.0f s", entry.name, error.message, interval
                )
                continue
            interval = state.interval = configured
            state.address, state.checked = _get_uri(entry.settings), time.time()
            if resolved == get_source(loaded.info):
                state.failure = ""
                if failed is not None:
                    failed, entry.reason = None, ""
            elif resolved != failed or time.monotonic() - failed_at > FAILED_VERSION_RETRY:
                failed = None if await self._reload(entry, resolved) else resolved
                failed_at = time.monotonic()

    async def _reload(self, entry: ModelVersion, resolved: str) -> bool:
        """Load the version that the alias points to; return False if it cannot be loaded."""
        logger.info("Model '%s': '%s' is now %s", entry.name, _get_uri(entry.settings), resolved)
        try:
            is_loaded = await self._registry.reload(entry)
        except MLServerError as error:  # logged by the registry, and shown in the index
            entry.metrics.swapped(False)
            self.states[entry].set_failure(error.message)
            return False
        if is_loaded:  # else it was unloaded meanwhile, which ends this task
            entry.metrics.swapped(True)
            self.states[entry].moved, self.states[entry].failure = time.time(), ""
        return True


def read_interval(settings: ModelSettings) -> float | None:
    """Return the polling interval in seconds; None = no polling."""
    value = settings.parameters.extra.get("follow") if settings.parameters else None
    if value is None or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        logger.error(
            "Model '%s': 'follow' ignored: expected seconds above 0, received %r",
            settings.name,
            value,
        )
        return None
    return float(value)


def _get_uri(settings: ModelSettings) -> str:
    return (settings.parameters.uri if settings.parameters else None) or ""


async def _resolve(loaded: LoadedModel, uri: str) -> str:
    """Return the URI of the version that an address points to. Raises `MLServerError`."""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            return await loaded.resolve_source(uri)
    except TimeoutError:
        raise MLServerError(
            f"Resolving '{uri}' timed out after {RESOLVE_TIMEOUT:g} s", 504
        ) from None
    except MLServerError:
        raise
    except Exception as error:  # the task that polls must not end
        raise MLServerError(
            f"Resolving '{uri}' failed: {type(error).__name__}: {error}", 500
        ) from error
