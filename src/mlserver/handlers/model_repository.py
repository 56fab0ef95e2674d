"""The model repository as callers see it: which models there are, load, unload."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from ..errors import MLServerError, ModelNotFound, without_paths
from ..logging import get_logger
from ..registry import Registry
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


class RepositoryControl(Protocol):
    """What front ends ask for: the same in every process that has some."""

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse: ...

    async def load(self, name: str) -> bool: ...

    async def unload(self, name: str) -> bool: ...


def check_load(parameters: Iterable[str]) -> None:
    """Refuse a load with settings or files in the request, for which loading what is in the repository is no answer."""
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise MLServerError(
                f"Invalid parameter '{brief(name)[1:-1]}': models are loaded as they are in the repository"
            )


class ModelRepositoryHandlers:
    """Index, load and unload, over what is on disk and what is loaded.

    A change that has begun is brought to its end, also if whoever asked for it leaves.
    """

    def __init__(self, repository: ModelRepository, registry: Registry) -> None:
        self._repository = repository
        self._registry = registry
        self._changes: set[asyncio.Task[bool]] = set()

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        """Every version that is in the repository or loaded, with its true state and the reason of a failure."""
        items: dict[tuple[str, str | None], RepositoryIndexResponseItem] = {}
        for entry in self._registry.entries():
            state, reason = entry.state, entry.reason
            if state is State.READY and not entry.ready:
                state, reason = (
                    State.UNAVAILABLE,
                    entry.loaded.unavailable_reason if entry.loaded else "",
                )
            items[entry.name, entry.version] = _item(entry.name, entry.version, state, reason)
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
        wanted = [item for item in items.values() if not payload.ready or str(item.state) == ready]
        return RepositoryIndexResponse(root=wanted)

    async def load(self, name: str) -> bool:
        """Load every version that the repository has, beside what is loaded; then unload versions it no longer has.

        Raises:
            ModelNotFound: the repository has no such model.
            MLServerError: a version could not be loaded; what was loaded before goes on serving.
        """
        return await self._to_the_end(self._load(name))

    async def _load(self, name: str) -> bool:
        found = await self._repository.find(name)
        results = await asyncio.gather(
            *(self._registry.load(settings) for settings in found), return_exceptions=True
        )
        for result in results:
            if isinstance(result, MLServerError):
                result.args = (without_paths(result.message),)  # the log has it whole
            if isinstance(result, BaseException):
                raise result
        kept = {settings.version for settings in found}
        for entry in self._registry.versions(name):
            if entry.version not in kept:
                await self._registry.unload(name, entry.version)
        return True

    async def unload(self, name: str) -> bool:
        """Unload every version.

        Raises:
            ModelNotFound: none is loaded.
            MLServerError: a model's own `unload` raised; all versions are gone all the same.
        """
        return await self._to_the_end(self._unload(name))

    async def _unload(self, name: str) -> bool:
        versions = self._registry.versions(name)
        if not versions:
            raise ModelNotFound(name)
        unloading = (self._registry.unload(name, entry.version) for entry in versions)
        for result in await asyncio.gather(*unloading, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return True

    async def _to_the_end(self, change: Coroutine[Any, Any, bool]) -> bool:
        task = asyncio.get_running_loop().create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def load_all(self, models: list[ModelSettings], is_logged: bool = True) -> int:
        """Load at start: each failure is kept in the index and leaves the others alone. Returns how many were loaded.

        Args:
            is_logged: Failures are logged; False if the caller says them.
        """
        for settings in models:
            self._registry.announce(settings)
        loads = [self._registry.load(settings, is_logged) for settings in models]
        results = await asyncio.gather(*loads, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, MLServerError):
                raise result
        return sum(not isinstance(result, BaseException) for result in results)


def _item(name: str, version: str | None, state: State, reason: str) -> RepositoryIndexResponseItem:
    return RepositoryIndexResponseItem(
        name=name, version=version, state=state, reason=without_paths(reason)
    )
