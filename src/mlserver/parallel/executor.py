"""The contract of execution: load a model somewhere, and get a stage that runs it.

`inline.py` and `pool.py` keep this contract; nobody past this package knows which of them runs a model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ..custom_routes import Route
from ..pipeline import RequestContext
from ..settings import ModelSettings
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse

# Seconds that a model may take to say what it is; after that, what it said last is the answer.
METADATA_TIMEOUT = 1.0


@dataclass(frozen=True)
class ModelInfo:
    """What a model told of itself when it had loaded.

    Attributes:
        ready: What its `load()` returned.
        row_wise: Whether requests may be joined along their first dimension without being asked for.
        load_seconds: Duration of the load by itself, without waiting behind other models.
    """

    metadata: MetadataModelResponse
    routes: tuple[Route, ...] = ()
    ready: bool = True
    row_wise: bool = False
    streams: bool = False
    load_seconds: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        return {
            "metadata": self.metadata.model_dump(),
            "routes": [asdict(route) for route in self.routes],
            "ready": self.ready,
            "row_wise": self.row_wise,
            "streams": self.streams,
            "load_seconds": self.load_seconds,
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> ModelInfo:
        metadata = MetadataModelResponse.model_validate(values.pop("metadata"))
        routes = tuple(Route(**route) for route in values.pop("routes"))
        return cls(metadata=metadata, routes=routes, **values)


@dataclass(slots=True)
class HTTPRequest:
    """A request to a model's own REST path, as it arrived."""

    method: str
    path: str
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


@dataclass(slots=True)
class HTTPResponse:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class LoadedModel(Protocol):
    """A model that is loaded somewhere: a stage, and the last one of its road."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def unavailable_reason(self) -> str:
        """Why `available` is false when it is."""
        ...

    @property
    def available(self) -> bool:
        """Whether a request could be run now (for a pool: whether a worker that holds the model lives)."""
        ...

    @property
    def capacity(self) -> int:
        """How many requests it works on at once before one waits for another (for a pool: its live workers)."""
        ...

    async def infer(self, request: InferenceRequest, call: RequestContext) -> InferenceResponse: ...

    def stream(
        self, requests: AsyncIterator[InferenceRequest], call: RequestContext
    ) -> AsyncIterator[InferenceResponse]: ...

    async def metadata(self) -> MetadataModelResponse:
        """Ask the model what it is; if it does not answer in time, return what it said last.

        Raises:
            MLServerError: its `metadata` raised.
        """
        ...

    async def route(self, request: HTTPRequest, call: RequestContext) -> HTTPResponse:
        """Answer a request to one of the model's own REST paths."""
        ...

    async def unload(self) -> bool:
        """Let the model go. Requests that run are answered first."""
        ...


class Executor(Protocol):
    async def start(self) -> None: ...

    async def load(self, settings: ModelSettings) -> LoadedModel:
        """Load a model. Raises `MLServerError` with the reason if it cannot be loaded; then nothing of it is left."""
        ...

    async def stop(self, grace: float) -> None:
        """End within about `grace` seconds, answering what runs if that time allows."""
        ...


class WorkerListener(Protocol):
    """The other processes that ask the workers: the server's further front ends."""

    def on_workers_changed(self) -> None:
        """A worker is ready or gone, or holds other models than before."""
        ...

    async def wait_model_released(self, key: str) -> None:
        """Return when none of them uses a model any more, or has had the time to end what it began."""
        ...

    async def wait_worker_released(self, number: int) -> None:
        """Return when none of them uses a worker any more, or has had the time to end what it began."""
        ...
