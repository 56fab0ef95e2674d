"""Repeats the loads and unloads of the other servers of a cluster.

The directory has the current application of each model. This server receives the state with its
own load or unload before that call ends (`ClusterAgent`), so that any difference is a load or
unload of another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import MLServerError, format_exception
from ...logging import get_logger
from ...settings import ModelSettings

logger = get_logger()

# Seconds before a failed load is retried.
RETRY = 30.0

Load = Callable[[ModelSettings], Awaitable[Any]]
Unload = Callable[[str, str | None], Awaitable[Any]]


class Follower:
    """Compares the directory's models with this server's.

    Args:
        own: Model -> application of this server; maintained by the executor.
        is_answered: Returns whether the cluster answers. What a cluster has said that does not
            answer any more is not repeated; its next state is.
    """

    def __init__(self, own: Mapping[str, str], is_answered: Callable[[], bool]) -> None:
        self._own = own
        self._is_answered = is_answered
        self._models: Mapping[str, Any] = {}
        self._paused: dict[str, int] = {}
        self._adopted: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, load: Load, unload: Unload) -> None:
        """Start to repeat the loads and unloads of other servers."""
        self._task = asyncio.get_running_loop().create_task(self._run(load, unload))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def update(self, models: Mapping[str, Any]) -> None:
        """Set the directory's models: model -> application and frame of the settings."""
        self._models = models
        self._changed.set()

    @contextmanager
    def paused(self, model: str) -> Iterator[None]:
        """Do not follow a model while this server loads or unloads it."""
        self._paused[model] = self._paused.get(model, 0) + 1
        try:
            yield
        finally:
            self._paused[model] -= 1
            self._changed.set()

    def take(self, model: str) -> str | None:
        """Return the application that the next load of a model has to use; None = any."""
        return self._adopted.pop(model, None)

    async def _run(self, load: Load, unload: Unload) -> None:
        failed: dict[str, str] = {}
        while True:
            await self._changed.wait()
            self._changed.clear()
            for model in self._list_changes(failed):
                try:
                    await self._apply(model, load, unload)
                except (Exception, asyncio.CancelledError) as error:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise  # `stop`; any other cancellation is one of the load
                    failed[model] = self._get_application(model)
                    _log_failure(error)
                    loop = asyncio.get_running_loop()
                    loop.call_later(RETRY, self._retry, failed, model)

    def _retry(self, failed: dict[str, str], model: str) -> None:
        failed.pop(model, None)
        self._changed.set()

    def _get_application(self, model: str) -> str:
        entry = self._models.get(model)
        return "" if entry is None else str(entry[0])

    def _list_changes(self, failed: Mapping[str, str]) -> list[str]:
        if not self._is_answered():
            return []
        changes = []
        for model in {*self._own, *self._models}:
            application = self._get_application(model)
            is_paused = self._paused.get(model, 0) > 0
            if not is_paused and application != self._own.get(model, ""):
                changes.append(model)
        return [model for model in changes if failed.get(model) != self._get_application(model)]

    async def _apply(self, model: str, load: Load, unload: Unload) -> None:
        name, version = model.split("\0")
        entry = self._models.get(model)
        if entry is None:
            logger.info("Model '%s': another server has unloaded it", name)
            await unload(name, version or None)
            return
        application, frame = entry
        logger.info("Model '%s': another server has loaded it", name)
        self._adopted[model] = application
        try:
            await load(ModelSettings.from_frame(frame))
        finally:
            self._adopted.pop(model, None)


def _log_failure(error: BaseException) -> None:
    """Log why a model was not followed, with the traceback of an unexpected error."""
    traceback = None if isinstance(error, MLServerError) else error
    reason = str(error) if traceback is None else format_exception(error)
    logger.error(
        "Ray: following another server failed: %s; next attempt in %g s",
        reason,
        RETRY,
        exc_info=traceback,
    )
