"""A pipeline without processes: the test decides what its executor's models do.

For tests of the stages before the executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from mlserver.batching.scheduler import Scheduler
from mlserver.custom_routes import Route
from mlserver.errors import MLServerError
from mlserver.handlers import DataPlane
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.parallel.executor import HTTPRequest, HTTPResponse, LoadedModel, ModelInfo
from mlserver.pipeline import RequestContext
from mlserver.registry import ModelVersion, Registry
from mlserver.settings import ModelSettings, Settings
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)


class Model:
    """A loaded model that returns its inputs, and `tag` as a parameter."""

    def __init__(self, settings: ModelSettings, info: ModelInfo, tag: str) -> None:
        self.settings = settings
        self.info = info
        self.tag = tag
        self.available = True
        self.capacity = 1
        self.unloaded = False
        self.requests: list[InferenceRequest] = []
        self.calls: list[RequestContext] = []
        self.go = asyncio.Event()
        self.go.set()
        self.response: Callable[[InferenceRequest], InferenceResponse] | None = None

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        self.requests.append(request)
        self.calls.append(context)
        await self.go.wait()
        if self.response is not None:
            return self.response(request)
        outputs = [
            ResponseOutput(
                name=tensor.name,
                shape=tensor.shape,
                datatype=tensor.datatype,
                data=tensor.data,
            )
            for tensor in request.inputs
        ]
        return InferenceResponse(
            model_name=self.settings.name, outputs=outputs, parameters=Parameters(tag=self.tag)
        )

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        async for request in requests:
            yield await self.infer(request, context)

    async def resolve_source(self, uri: str) -> str:
        return uri

    async def route(self, request: HTTPRequest, context: RequestContext) -> HTTPResponse:
        await self.go.wait()
        return HTTPResponse(
            201,
            [(b"content-type", b"text/x"), (b"content-length", b"9"), (b"x-own", b"1")],
            request.path.encode(),
        )

    unavailable_reason = "the test says so"
    abandoned_calls = 0

    async def metadata(self) -> MetadataModelResponse:
        return self.info.metadata

    async def unload(self) -> bool:
        self.unloaded = True
        return True


class Executor:
    """Loads `Model`s; `load_error` makes the next load fail, loads wait for `go`.

    Attributes:
        waiting: How many loads wait.
    """

    can_cancel_load = True

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.load_error: BaseException | None = None
        self.ready = True
        self.info: dict[str, Any] = {}
        self.go = asyncio.Event()
        self.go.set()
        self.waiting = 0

    async def start(self, models: Sequence[ModelSettings] = ()) -> None:
        return None

    async def load(self, settings: ModelSettings) -> LoadedModel:
        self.waiting += 1
        try:
            await self.go.wait()
        finally:
            self.waiting -= 1
        if self.load_error is not None:
            error, self.load_error = self.load_error, None
            raise error
        metadata = MetadataModelResponse(name=settings.name, platform="test")
        fields: dict[str, Any] = {"metadata": metadata, "ready": self.ready} | self.info
        info = ModelInfo(**fields)
        self.models.append(Model(settings, info, f"{settings.version}#{len(self.models)}"))
        return self.models[-1]

    async def stop(self, grace: float) -> None:
        return None


class Bench:
    """A registry and a data plane over `Executor`."""

    def __init__(
        self, drain_timeout: float | None = None, policy: BatchPolicy | None = None, **settings: Any
    ) -> None:
        self.executor = Executor()
        self.metrics = ServerMetrics()
        self._policy = policy or BatchPolicy()
        self.registry = Registry(self.executor, self._pipeline, self.metrics, drain_timeout)
        self.data_plane = DataPlane(Settings(**settings), self.registry)
        self.data_plane.accepting = True

    def _pipeline(self, entry: ModelVersion, loaded: LoadedModel) -> Scheduler:
        return Scheduler(entry.name, loaded, self._policy, AdmissionPolicy(), entry.metrics)

    async def load(self, name: str = "m", version: str | None = None, **info: Any) -> Model:
        """Load a model version. Raises the registry's error."""
        self.executor.info = info
        await self.registry.load(model_settings(name, version))
        return self.executor.models[-1]

    async def fail(
        self, name: str = "m", version: str | None = None, text: str = "no weights"
    ) -> None:
        """Load a model version that cannot be loaded."""
        self.executor.load_error = MLServerError(text, 500)
        try:
            await self.registry.load(model_settings(name, version))
        except MLServerError as error:
            assert error.message == text  # noqa: PT017 - the helper's own check
        else:
            raise AssertionError

    async def ask(
        self, name: str = "m", version: str | None = None, **fields: Any
    ) -> InferenceResponse:
        return await self.data_plane.infer(request(**fields), name, version)


def model_settings(name: str = "m", version: str | None = None) -> ModelSettings:
    parameters = {} if version is None else {"parameters": {"version": version}}
    return ModelSettings(name=name, implementation="mlserver.MLModel", **parameters)  # type: ignore[arg-type]


def request(data: Any = (1.0, 2.0), name: str = "x", **fields: Any) -> InferenceRequest:
    values = list(data)
    tensor = RequestInput(name=name, shape=[len(values)], datatype="FP64", data=TensorData(values))
    return InferenceRequest(inputs=[tensor], **fields)


def tag_of(response: InferenceResponse) -> str:
    """The tag of the loaded model that answered."""
    assert response.parameters is not None
    return str((response.parameters.model_extra or {})["tag"])


def route(path: str, **fields: Any) -> Route:
    return Route(path, **fields)
