"""The data plane: inference, health, metadata and statistics, independent of the protocol.

`infer` assigns the request's id and deadline, validates the request, passes it to the model's
pipeline, and records the response in the metrics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..custom_routes import Route
from ..errors import DeadlineExceeded, ModelNotFound, ModelNotReady
from ..log_context import note_model
from ..metrics.model_statistics import ModelStatistics
from ..parallel.executor import HTTPRequest, HTTPResponse, LoadedModel
from ..pipeline import RequestContext
from ..registry import LOAD_RETRY, ModelPipeline, ModelRegistryView, ModelVersion
from ..security.credentials import CREDENTIAL_HEADERS
from ..settings import Settings
from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
)
from .model_config import build_model_config
from .request_fields import generate_id, record_error, set_request_fields
from .requested_outputs import select_outputs
from .stream_deadline import StreamDeadline
from .validation import check_request
from .version_router import VersionRouter

EXTENSIONS = (
    "model_repository",
    "model_configuration",
    "schedule_policy",
    "binary_tensor_data",
    "parameters",
    "statistics",
)

CollectStatistics = Callable[[Sequence[ModelVersion]], Awaitable[list[ModelStatistics]]]


@dataclass(frozen=True)
class ModelRoute:
    """A REST route that a model version declares."""

    name: str
    version: str | None
    route: Route


class DataPlane:
    """Inference, health and metadata.

    Args:
        settings: Settings of the server.
        registry: The loaded models.
        collect_statistics: Returns the statistics of models, summed over all processes; None = this
            is the only one.

    Attributes:
        accepting: Set by the server: whether models have been loaded and the server is not
            stopping.
    """

    def __init__(
        self,
        settings: Settings,
        registry: ModelRegistryView,
        collect_statistics: CollectStatistics | None = None,
    ) -> None:
        self._settings = settings
        self._has_auth = settings.auth is not None
        self._registry = registry
        self._collect_statistics = collect_statistics
        self._router = VersionRouter(registry, self._serve)
        self.accepting = False

    # -- health and metadata --

    async def live(self) -> bool:
        """Whether the process is live; does not depend on models."""
        return True

    async def ready(self) -> bool:
        """Whether the server can run inference.

        All models must be ready, or one of them with `strict_readiness: false`. Without models,
        `empty_registry_readiness` decides.
        """
        if not self.accepting:
            return False
        entries = self._registry.entries()
        if not entries and not self._registry.missing:
            return self._settings.empty_registry_readiness
        ready = [entry.ready for entry in entries] + [False] * len(self._registry.missing)
        return all(ready) if self._settings.strict_readiness else any(ready)

    async def metadata(self) -> MetadataServerResponse:
        configured = [name for name in self._settings.extensions if name not in EXTENSIONS]
        return MetadataServerResponse(
            name=self._settings.server_name,
            version=self._settings.server_version,
            extensions=[*EXTENSIONS, *configured],
        )

    def model_names(self) -> list[str]:
        """Return the names of all models, loaded or not, in the order in which they were added."""
        return [entry.name for entry in self._registry.defaults()]

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """Whether a model can run inference. Raises `ModelNotFound`."""
        return self._registry.find(name, version).ready

    def get_folder(self, name: str, version: str | None = None) -> str | None:
        """Return the folder of a model's settings file. Raises `ModelNotFound`."""
        return self._registry.find(name, version).settings.folder

    def check_usable(self, name: str, version: str | None = None) -> None:
        """Raise `ModelNotFound`, or `ModelNotReady` if the model is not loaded."""
        self._usable(self._registry.find(name, version))

    def check_ready(self, name: str, version: str | None = None) -> None:
        """Raise the errors of `check_usable`, or `ModelNotReady` if no worker is running."""
        entry = self._registry.find(name, version)
        self._usable(entry)
        if not entry.ready:
            raise self._with_status(
                ModelNotReady(entry.name, entry.version, retry_after=LOAD_RETRY)
            )

    @property
    def loading(self) -> bool:
        """Whether a model is loading for the first time, so that its routes are unknown."""
        return any(entry.loading for entry in self._registry.entries())

    def _usable(self, entry: ModelVersion) -> tuple[LoadedModel, ModelPipeline]:
        try:
            return entry.usable()
        except ModelNotReady as error:
            raise self._with_status(error) from None

    def _with_status(self, error: ModelNotReady) -> ModelNotReady:
        error.status_code = self._settings.not_ready_status
        return error

    async def model_metadata(self, name: str, version: str | None = None) -> MetadataModelResponse:
        """Return the model's current metadata.

        Raises:
            ModelNotFound: there is no such model.
            ModelNotReady: the model is not loaded.
            MLServerError: the model's own `metadata` raised.
        """
        entry = self._registry.find(name, version)
        loaded, _ = self._usable(entry)
        return self._with_versions(entry.name, await loaded.metadata())

    def loaded_metadata(self, name: str, version: str | None = None) -> MetadataModelResponse:
        """Return the model's metadata at load. Raises `ModelNotFound` and `ModelNotReady`."""
        entry = self._registry.find(name, version)
        loaded, _ = self._usable(entry)
        return self._with_versions(entry.name, loaded.info.metadata)

    def _with_versions(self, name: str, metadata: MetadataModelResponse) -> MetadataModelResponse:
        """Return the metadata with the loaded versions beside those that the model names."""
        versions = [*(metadata.versions or ()), *self._loaded_versions(name)]
        if not versions:
            return metadata
        return metadata.model_copy(update={"versions": list(dict.fromkeys(versions))})

    def _loaded_versions(self, name: str) -> Iterator[str]:
        """Yield the ready versions of a model.

        Of an entry without a version, those of its metadata.
        """
        for entry in self._registry.versions(name):
            if entry.ready and entry.loaded is not None:
                if entry.version:
                    yield entry.version
                else:
                    yield from entry.loaded.info.metadata.versions or ()

    def model_config(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return a minimal configuration in Triton's format."""
        entry = self._registry.find(name, version)
        loaded, pipeline = self._usable(entry)
        return build_model_config(entry.name, loaded.info, pipeline.max_batch_size)

    async def statistics(
        self, name: str | None = None, version: str | None = None
    ) -> dict[str, Any]:
        """Return the statistics extension's counts and nanoseconds per model version."""
        if name is None:
            entries = self._registry.entries()
        elif version:
            entries = [self._registry.find(name, version)]
        else:
            entries = self._registry.versions(self._registry.find(name).name)
        if self._collect_statistics is None:
            statistics = [entry.statistics for entry in entries]
        else:
            statistics = await self._collect_statistics(entries)
        # Clients parse the version as a number; "0" is not used as the name of a version.
        model_stats = [
            values.to_plain(entry.name, entry.version or "0")
            for entry, values in zip(entries, statistics, strict=True)
        ]
        return {"model_stats": model_stats}

    # -- inference --

    def infer(
        self,
        payload: InferenceRequest,
        name: str,
        version: str | None = None,
        context: RequestContext | None = None,
    ) -> Coroutine[Any, Any, InferenceResponse]:
        """Return a coroutine that runs inference and returns the response.

        Args:
            context: Deadline, headers and priority of the request; its timings are filled in.

        Raises:
            MLServerError: an error to report to the client.
        """
        context = context or RequestContext()
        entry = self._registry.find(name, version)
        if version or entry.split is None:
            return self._serve(entry, payload, context)
        return self._router.infer(entry, payload, context)

    async def _serve(
        self, entry: ModelVersion, payload: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        """Run inference on one version, and record it."""
        started = time.perf_counter_ns()
        try:
            loaded, pipeline = entry.usable()
        except ModelNotReady as error:
            raise self._with_status(error) from None
        log_context = note_model(entry.name, entry.version)
        entry.metrics.request_started()
        try:
            check_request(payload, self._settings.max_inputs)
            with_headers = not loaded.info.row_wise
            set_request_fields(payload, context, log_context, with_headers, self._has_auth)
            response = await pipeline.infer(payload, context)
            if payload.outputs:
                select_outputs(response, payload.outputs, loaded.info.metadata.outputs or ())
        except BaseException as error:
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            record_error(entry.metrics, error, payload, context)
            raise
        self._finish(entry, payload, response, context)
        entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started)
        return response

    def has_streams(self, name: str, version: str | None = None) -> bool:
        """Whether the model implements streaming; else `infer` serves each request of a stream."""
        loaded, _ = self._usable(self._registry.find(name, version))
        return loaded.info.streams

    async def infer_stream(
        self,
        payloads: AsyncIterator[InferenceRequest],
        name: str,
        version: str | None = None,
        context: RequestContext | None = None,
    ) -> AsyncIterator[InferenceResponse]:
        """Yield responses to a stream of requests.

        All have the first request's id and requested outputs.

        Raises:
            DeadlineExceeded: a response took longer than `request_timeout`.
        """
        started = time.perf_counter_ns()
        context = context or RequestContext()
        entry = self._registry.find(name, version)
        if not version and entry.split is not None:
            entry = self._router.select_version(entry, context)
        loaded, pipeline = self._usable(entry)
        first: InferenceRequest | None = None
        deadline = StreamDeadline(self._get_timeout(entry))
        log_context = note_model(entry.name, entry.version)
        entry.metrics.request_started()

        async def validated() -> AsyncIterator[InferenceRequest]:
            nonlocal first
            async for payload in deadline.watch_requests(payloads):
                check_request(payload, self._settings.max_inputs)
                set_request_fields(payload, context, log_context, True, self._has_auth)
                if first is None:
                    first = payload
                yield payload

        responses = pipeline.stream(validated(), context)
        try:
            async for response in deadline.watch_responses(responses):
                if first is not None and first.outputs:
                    select_outputs(response, first.outputs, loaded.info.metadata.outputs or ())
                self._finish(entry, first, response, context)
                yield response
        except TimeoutError:
            error = DeadlineExceeded(f"Model {entry.name} gave no answer in time")
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            record_error(entry.metrics, error, first, context)
            raise error from None
        except BaseException as error:
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            record_error(entry.metrics, error, first, context)
            raise
        finally:
            await responses.aclose()  # type: ignore[attr-defined]
        entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started)

    @property
    def generation(self) -> int:
        """Incremented whenever loaded models (and therefore their routes) change."""
        return self._registry.generation

    def routes(self) -> list[ModelRoute]:
        """Return the REST routes of the default versions, in the order of their loading."""
        return [route for entry in self._registry.defaults() for route in _get_routes(entry)]

    def get_routes(self, name: str, version: str | None = None) -> list[ModelRoute]:
        """Return the REST routes of one model; [] if there is no such model."""
        try:
            entry = self._registry.find(name, version)
        except ModelNotFound:
            return []
        return [ModelRoute(name, version, declared.route) for declared in _get_routes(entry)]

    def select_route(self, matched: ModelRoute, context: RequestContext) -> Route:
        """Return the route of the version that will serve this request.

        Versions may use different formats on one path.
        """
        entry = self._registry.find(matched.name, matched.version)
        if matched.version or entry.split is None:
            return matched.route
        path, method = matched.route.path, matched.route.method
        for declared in _get_routes(self._router.select_version(entry, context)):
            route = declared.route
            if (route.path, route.method) == (path, method):
                return route if route.wire else matched.route
        return matched.route

    async def wait_shadows_idle(self) -> None:
        """Wait until no request to a shadow version is running."""
        await self._router.wait_idle()

    async def route(self, name: str, version: str | None, request: HTTPRequest) -> HTTPResponse:
        """Run a model's custom route, and return its response."""
        entry = self._registry.find(name, version)
        loaded, pipeline = self._usable(entry)
        note_model(entry.name, entry.version)
        if self._has_auth:
            pairs = request.headers
            request.headers = [pair for pair in pairs if pair[0].decode() not in CREDENTIAL_HEADERS]
        try:
            with pipeline.count_route():
                async with asyncio.timeout(self._get_timeout(entry)):
                    return await loaded.route(request, RequestContext())
        except TimeoutError:
            raise DeadlineExceeded(f"Request for model {entry.name} timed out") from None

    def _get_timeout(self, entry: ModelVersion) -> float | None:
        return entry.settings.request_timeout or self._settings.request_timeout

    @staticmethod
    def _finish(
        entry: ModelVersion,
        payload: InferenceRequest | None,
        response: InferenceResponse,
        context: RequestContext,
    ) -> None:
        version = response.model_version
        request_id = payload.id if payload is not None else generate_id()
        response.put(id=request_id, model_version=entry.version if version is None else version)
        parameters = response.parameters
        if parameters is not None and parameters.headers is not None:
            context.response_headers = parameters.headers
            parameters.put(headers=None)


def _get_routes(entry: ModelVersion) -> list[ModelRoute]:
    if entry.loaded is None:
        return []
    return [ModelRoute(entry.name, None, route) for route in entry.loaded.info.routes]
