"""Models whose address may point elsewhere tomorrow are followed: when `models:/wine@champion` moves, the new version comes.

`parameters.extra.follow` is the number of seconds between two looks. The worker that runs the model asks the registry, for
this process knows no MLflow. A new version is loaded beside the old one and takes its place when it has answered its input
example; one that fails is reported, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import quote

from ..errors import MLServerError
from ..logging import get_logger
from ..parallel.executor import HTTPRequest, LoadedModel
from ..pipeline import RequestContext
from ..registry import ModelVersion, Registry
from ..settings import ModelSettings

logger = get_logger()

# A path that the runtime answers and no front end publishes.
QUESTION = "/mlflow/source"
# Seconds: what a look may take, the pause of a registry that cannot be reached, and of a version that failed.
PATIENCE = 60.0
LONGEST_PAUSE = 300.0
TRY_AGAIN = 600.0


class AliasWatcher:
    """Follows the models that ask for it, one task each, from their first load to their unload."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tasks: dict[ModelVersion, asyncio.Task[None]] = {}

    def watch(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """A model was loaded: follow it if it asks for that and is not followed yet."""
        if entry in self._tasks or seconds_of(entry.settings) is None:
            return
        if source_of(loaded) in (None, _address(entry.settings)):
            logger.warning(
                "Model '%s' is not followed: its address names one version for good", entry.name
            )
            return
        task = asyncio.get_running_loop().create_task(self._follow(entry))
        self._tasks[entry] = task
        task.add_done_callback(lambda _: self._tasks.pop(entry, None))

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, entry: ModelVersion) -> None:
        pause = seconds_of(entry.settings)
        failed: str | None = None
        failed_at = 0.0
        while pause is not None:
            await asyncio.sleep(pause)
            every, loaded = seconds_of(entry.settings), entry.loaded
            if every is None or loaded is None:
                return
            try:
                newest = await _newest(loaded, _address(entry.settings))
            except MLServerError as error:
                pause = min(2 * pause, max(LONGEST_PAUSE, every))
                logger.warning(
                    "Model '%s': %s; next look in %.0f s", entry.name, error.message, pause
                )
                continue
            pause = every
            if newest == source_of(loaded):
                if failed is not None:
                    failed, entry.reason = None, ""
            elif newest != failed or time.monotonic() - failed_at > TRY_AGAIN:
                failed = None if await self._swap(entry, newest) else newest
                failed_at = time.monotonic()

    async def _swap(self, entry: ModelVersion, newest: str) -> bool:
        logger.info("Model '%s': '%s' is now %s", entry.name, _address(entry.settings), newest)
        try:
            await self._registry.load(entry.settings)
        except MLServerError:  # the registry has logged it, and the index tells the reason
            entry.metrics.swapped(False)
            return False
        entry.metrics.swapped(True)
        return True


def seconds_of(settings: ModelSettings) -> float | None:
    """The seconds between two looks; None = not followed."""
    value = settings.parameters.extra.get("follow") if settings.parameters else None
    if value is None or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        logger.error(
            "Model '%s': 'follow' must be a number of seconds above 0; it is not followed",
            settings.name,
        )
        return None
    return float(value)


def source_of(loaded: LoadedModel) -> str | None:
    """The address that the loaded model came from, with its version said outright."""
    parameters = loaded.info.metadata.parameters
    source = (parameters.model_extra or {}).get("source") if parameters is not None else None
    return source if isinstance(source, str) else None


def _address(settings: ModelSettings) -> str:
    return (settings.parameters.uri if settings.parameters else None) or ""


async def _newest(loaded: LoadedModel, address: str) -> str:
    """What the address points to now. Raises `MLServerError` if nobody can tell."""
    request = HTTPRequest("GET", QUESTION, f"uri={quote(address, safe='')}".encode())
    try:
        async with asyncio.timeout(PATIENCE):
            response = await loaded.route(request, RequestContext())
    except TimeoutError:
        raise MLServerError(f"'{address}' was not found out in {PATIENCE:g} s", 504) from None
    answer = json.loads(response.body)
    if response.status != 200:
        raise MLServerError(str(answer.get("error", answer)), response.status)
    return str(answer["source"])
