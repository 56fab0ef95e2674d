"""Model repository handlers: index, load and unload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Protocol

from ..errors import MLServerError, ModelNotFound, remove_paths
from ..logging import get_logger
from ..registry import ModelVersion, Registry
from ..repository import ModelRepository
from ..settings import ModelSettings
from ..tensor import brief
from ..types import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryIndexResponseItem,
    State,
)

logger = get_logger()


# Returns a document of `monitoring` by its name, in the server and in HTTP workers.
ReadMonitoring = Callable[[str], Awaitable[dict[str, Any]]]


class RepositoryControl(Protocol):
    """The model repository as front ends use it, in the server and in HTTP workers."""

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse: ...

    async def load(self, name: str) -> bool: ...

    async def unload(self, name: str) -> bool: ...


def check_load(parameters: Iterable[str]) -> None:
    """Raise `MLServerError` for a load request with settings or files: not supported."""
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise MLServerError(
                f"Invalid parameter '{brief(name)[1:-1]}': "
                "models are loaded as they are in the repository"
            )


class ModelRepositoryHandlers:
    """Index, load and unload of the models in the repository and the registry.

    A load or unload that has started completes even if the client disconnects.
    """

    def __init__(self, repository: ModelRepository, registry: Registry) -> None:
        self._repository = repository
        self._registry = registry
        self._changes: set[asyncio.Task[bool]] = set()

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        """Return all versions in the repository or the registry, with their states and reasons."""
        items: dict[tuple[str, str | None], RepositoryIndexResponseItem] = {}
        for entry in self._registry.entries():
            items[entry.name, entry.version] = _item(
                entry.name, entry.version, *_describe_state(entry)
            )
        for entry in self._registry.retiring:
            items.setdefault(
                (entry.name, entry.version), _item(entry.name, entry.version, entry.state, "")
            )
        for settings in await self._repository.list():
            key = settings.name, settings.version
            items.setdefault(key, _item(*key, State.UNAVAILABLE, ""))
        for name, reason in self._repository.problems.items():
            items.setdefault((name, None), _item(name, None, State.UNAVAILABLE, reason))
        ready = State.READY.value  # messages keep enum members as their values
        selected = list(items.values())
        if payload.ready:
            selected = [item for item in selected if str(item.state) == ready]
        return RepositoryIndexResponse(root=selected)

    async def load(self, name: str) -> bool:
        """Load every version of a model in the repository, and unload those no longer in it.

        Raises:
            ModelNotFound: the repository has no such model.
            LoadCancelled: the model was unloaded meanwhile.
            MLServerError: a version could not be loaded. Versions loaded before keep serving.
        """
        return await self._complete(self._load(name))

    async def _load(self, name: str) -> bool:
        settings_of_versions = await self._repository.find(name)
        results = await asyncio.gather(
            *(self._registry.load(settings) for settings in settings_of_versions),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, MLServerError):
                result.args = (remove_paths(result.message),)  # the log has the full message
            if isinstance(result, BaseException):
                raise result
        kept = {settings.version for settings in settings_of_versions}
        for entry in self._registry.versions(name):
            if entry.version not in kept:
                with suppress(ModelNotFound):  # another request has unloaded it
                    await self._registry.unload(name, entry.version)
        return True

    async def unload(self, name: str) -> bool:
        """Unload every version of a model. Loads of it that run are cancelled.

        Raises:
            ModelNotFound: no version is loaded.
            MLServerError: a model's own `unload` raised; all versions are removed all the same.
        """
        return await self._complete(self._unload(name))

    async def _unload(self, name: str) -> bool:
        versions = self._registry.versions(name)
        if not versions:
            raise ModelNotFound(name)
        self._registry.cancel_loads(name)
        unloading = (self._registry.unload(name, entry.version) for entry in versions)
        results = await asyncio.gather(*unloading, return_exceptions=True)
        not_found = [result for result in results if isinstance(result, ModelNotFound)]
        for result in results:
            # Another request may have unloaded some of the versions meanwhile.
            is_expected = result in not_found and len(not_found) < len(results)
            if isinstance(result, BaseException) and not is_expected:
                raise result
        return True

    async def _complete(self, change: Coroutine[Any, Any, bool]) -> bool:
        """Run a change to its end, also if the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def load_all(self, models: list[ModelSettings], is_logged: bool = True) -> int:
        """Load models at startup, and return how many were loaded. The index shows the failures.

        Args:
            is_logged: Whether failures are logged; False if the caller reports them.
        """
        for settings in models:
            self._registry.announce(settings)
        loads = [self._registry.load(settings, is_logged) for settings in models]
        results = await asyncio.gather(*loads, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, MLServerError):
                raise result
        return sum(not isinstance(result, BaseException) for result in results)


def _describe_state(entry: ModelVersion) -> tuple[State, str]:
    """Return state and reason: READY if a request can run now, as the readiness of the model."""
    if entry.ready:
        is_reloading = entry.state is State.LOADING
        return State.READY, "reload in progress" if is_reloading else entry.reason
    if entry.state is State.READY and entry.loaded is not None:
        return State.UNAVAILABLE, entry.loaded.unavailable_reason
    return entry.state, entry.reason


def _item(name: str, version: str | None, state: State, reason: str) -> RepositoryIndexResponseItem:
    return RepositoryIndexResponseItem(
        name=name, version=version, state=state, reason=remove_paths(reason)
    )
