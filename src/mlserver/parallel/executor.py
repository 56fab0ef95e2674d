"""The contract of executors: load a model and return the last stage of its pipeline.

`in_process`, `pool_manager` and `ray.executor` implement it. Code outside of this package does not
depend on which of them runs a model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ..custom_routes import Route
from ..pipeline import RequestContext
from ..settings import ModelSettings
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse

# Seconds that a model may take to return its metadata; after that the last known metadata is
# returned.
METADATA_TIMEOUT = 1.0


@dataclass(frozen=True)
class ModelInfo:
    """Properties of a model, read after its load.

    Attributes:
        ready: Result of its `load()`.
        row_wise: Whether requests may be joined along their first dimension without a setting that
            says so.
        streams: Whether it implements `predict_stream`.
        max_concurrency: Calls that run at a time in each process that holds the model.
        load_seconds: Duration of the load, without waiting for the loads of other models.
        trial_results: See `MLModel`.
    """

    metadata: MetadataModelResponse
    routes: tuple[Route, ...] = ()
    ready: bool = True
    row_wise: bool = False
    streams: bool = False
    max_concurrency: int = 1
    load_seconds: float = 0.0
    trial_results: dict[str, Any] | None = None

    def to_plain(self) -> dict[str, Any]:
        return {
            "metadata": self.metadata.model_dump(),
            "routes": [asdict(route) for route in self.routes],
            "ready": self.ready,
            "row_wise": self.row_wise,
            "streams": self.streams,
            "max_concurrency": self.max_concurrency,
            "load_seconds": self.load_seconds,
            "trial_results": self.trial_results,
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> ModelInfo:
        metadata = MetadataModelResponse.model_validate(values.pop("metadata"))
        routes = tuple(Route(**route) for route in values.pop("routes"))
        return cls(metadata=metadata, routes=routes, **values)


@dataclass(slots=True)
class HTTPRequest:
    """A request to a model's custom REST path, with the path and the body as they arrived."""

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
    """A loaded model: the last stage of its pipeline."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def unavailable_reason(self) -> str:
        """The reason to report while `available` is false."""
        ...

    @property
    def available(self) -> bool:
        """Whether a request could run now (in a pool: whether a live worker has the model)."""
        ...

    @property
    def capacity(self) -> int:
        """Number of requests that run at once without waiting (in a pool: its live workers)."""
        ...

    @property
    def abandoned_calls(self) -> int:
        """Functions of the model that still run although their callers are gone."""
        ...

    async def infer(
        self, request: InferenceRequest, context: RequestContext
    ) -> InferenceResponse: ...

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]: ...

    async def metadata(self) -> MetadataModelResponse:
        """Return the model's metadata, the last known after `METADATA_TIMEOUT`.

        Raises:
            MLServerError: its `metadata` raised.
        """
        ...

    async def resolve_source(self, uri: str) -> str:
        """Return what the model's `resolve_source` returns.

        Raises `MLServerError`: what it raised.
        """
        ...

    async def route(self, request: HTTPRequest, context: RequestContext) -> HTTPResponse:
        """Answer a request to one of the model's custom REST paths."""
        ...

    async def unload(self) -> bool:
        """Unload the model after its running requests; return the result of its `unload`."""
        ...


class Executor(Protocol):
    """Loads models.

    Attributes:
        can_cancel_load: Whether a load that is cancelled leaves nothing behind, so that an unload
            need not wait for it.
    """

    can_cancel_load: bool

    async def start(self, models: Sequence[ModelSettings] = ()) -> None:
        """Start the executor.

        Args:
            models: Models that will be loaded next, to prepare for.
        """
        ...

    async def load(self, settings: ModelSettings) -> LoadedModel:
        """Load a model.

        Raises:
            MLServerError: the load failed; nothing of the model remains in memory.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Stop after the running requests, or after `grace` seconds."""
        ...


class WorkerListener(Protocol):
    """The supervisor of other processes that call the workers: the HTTP workers."""

    def on_workers_changed(self) -> None:
        """A worker became ready or ended, or its set of models changed."""
        ...

    async def wait_model_released(self, key: str) -> None:
        """Return when no HTTP worker calls the model any more, or the drain timeout has passed."""
        ...

    async def wait_worker_released(self, number: int) -> None:
        """Return when no HTTP worker calls the worker any more, or the drain timeout has passed."""
        ...
