"""The repository handlers of a server with HTTP workers."""

from __future__ import annotations

from ..handlers.model_repository import RepositoryControl
from ..types import RepositoryIndexRequest, RepositoryIndexResponse
from .supervisor import HTTPWorkerSupervisor


class SynchronizedRepository:
    """Repository whose load and unload wait until every HTTP worker has acknowledged the change."""

    def __init__(self, repository: RepositoryControl, supervisor: HTTPWorkerSupervisor) -> None:
        self._repository = repository
        self._supervisor = supervisor

    async def index(self, payload: RepositoryIndexRequest) -> RepositoryIndexResponse:
        return await self._repository.index(payload)

    async def load(self, name: str) -> bool:
        try:
            return await self._repository.load(name)
        finally:
            await self._supervisor.wait_synchronized()

    async def unload(self, name: str) -> bool:
        try:
            return await self._repository.unload(name)
        finally:
            await self._supervisor.wait_synchronized()
