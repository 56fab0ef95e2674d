"""Messages of the repository extension: models, their states, and the reasons of failures."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from pydantic import RootModel

from .base import BaseModel


class State(Enum):
    """State of a model version. UNAVAILABLE models have a `reason` when they failed."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


class RepositoryIndexRequest(BaseModel):
    """`ready: true` lists ready models only."""

    ready: bool | None = None


class RepositoryIndexResponseItem(BaseModel):
    name: str
    version: str | None = None
    state: State
    reason: str


class RepositoryIndexResponse(RootModel[list[RepositoryIndexResponseItem]]):
    root: list[RepositoryIndexResponseItem]

    def __iter__(self) -> Iterator[RepositoryIndexResponseItem]:  # type: ignore[override]
        return iter(self.root)

    def __getitem__(self, index: int) -> RepositoryIndexResponseItem:
        return self.root[index]

    def __len__(self) -> int:
        return len(self.root)


class RepositoryLoadErrorResponse(BaseModel):
    error: str | None = None


class RepositoryUnloadErrorResponse(BaseModel):
    error: str | None = None
