"""The data plane: what can be asked of the server and of its models, free of any protocol.

Each request gets its id and its limits here, is checked, goes down the road of its model, and is counted on the way back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..custom_routes import Route
from ..errors import DeadlineExceeded, ModelNotFound, ModelNotReady
from ..metrics.model_statistics import ModelStatistics
from ..parallel.executor import HTTPRequest, HTTPResponse, LoadedModel
from ..pipeline import RequestContext
from ..registry import LOAD_RETRY, ModelPipeline, ModelRegistryView, ModelVersion
from ..security.credentials import CREDENTIALS
from ..settings import Settings
from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
)
from .requested_outputs import select
from .stream_deadline import StreamDeadline
from .validation import check_id, check_request, priority_of, seconds_of_timeout
from .version_router import VersionRouter

EXTENSIONS = (
    "model_repository",
    "model_configuration",
    "schedule_policy",
    "binary_tensor_data",
    "parameters",
    "statistics",
)

Gather = Callable[[Sequence[ModelVersion]], Awaitable[list[ModelStatistics]]]


@dataclass(frozen=True)
class ModelRoute:
    """A REST path that a model version declares."""

    name: str
    version: str | None
    route: Route


class DataPlane:
    """Inference, health and metadata.

    Args:
        settings: The server's.
        registry: What is loaded.
        gather: Asks other processes what they counted of models, and gives the sums; None = there are no others.
    """

    def __init__(
        self,
        settings: Settings,
        registry: ModelRegistryView,
        gather: Gather | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._gather = gather
        self._router = VersionRouter(registry, self._serve)
        # Set by the server: False until every model that should load has been tried, and again when it stops.
        self.accepting = False

    # -- health and metadata --

    async def live(self) -> bool:
        """Whether this process answers. It never waits for a model."""
        return True

    async def ready(self) -> bool:
        """Whether models can be asked now.

        Every known model must be ready; with `strict_readiness: false` one is enough. Without any model,
        `empty_registry_readiness` decides.
        """
        if not self.accepting:
            return False
        entries = self._registry.entries()
        if not entries and not self._registry.missing:
            return self._settings.empty_registry_readiness
        states = [entry.ready for entry in entries] + [False for _ in self._registry.missing]
        return (all if self._settings.strict_readiness else any)(states)

    async def metadata(self) -> MetadataServerResponse:
        return MetadataServerResponse(
            name=self._settings.server_name,
            version=self._settings.server_version,
            extensions=[
                *EXTENSIONS,
                *(name for name in self._settings.extensions if name not in EXTENSIONS),
            ],
        )

    def model_names(self) -> list[str]:
        """The models that are loaded or should be, in the order in which they came."""
        return [entry.name for entry in self._registry.defaults()]

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """Raises `ModelNotFound`."""
        return self._registry.find(name, version).ready

    def check_usable(self, name: str, version: str | None = None) -> None:
        """Raises `ModelNotFound`, or `ModelNotReady` while there is no loaded model to ask."""
        self._usable(self._registry.find(name, version))

    def check_ready(self, name: str, version: str | None = None) -> None:
        """Raises what `check_usable` raises, or `ModelNotReady` while no worker is alive to answer."""
        entry = self._registry.find(name, version)
        self._usable(entry)
        if not entry.ready:
            raise self._with_status(
                ModelNotReady(entry.name, entry.version, retry_after=LOAD_RETRY)
            )

    @property
    def loading(self) -> bool:
        """Whether a model is loading for the first time, so that its paths are not known yet."""
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
        """What the model says of itself now.

        Raises:
            ModelNotFound: there is no such model.
            ModelNotReady: there is no loaded model to ask.
            MLServerError: the model's own `metadata` raised.
        """
        entry = self._registry.find(name, version)
        loaded, _ = self._usable(entry)
        return await loaded.metadata()

    def loaded_metadata(self, name: str, version: str | None = None) -> MetadataModelResponse:
        """What the model said of itself when it was loaded. Raises `ModelNotFound` and `ModelNotReady`."""
        entry = self._registry.find(name, version)
        loaded, _ = self._usable(entry)
        metadata = loaded.info.metadata
        found = [*(metadata.versions or ()), *self._loaded_versions(entry.name)]
        return (
            metadata.model_copy(update={"versions": list(dict.fromkeys(found))})
            if found
            else metadata
        )

    def _loaded_versions(self, name: str) -> Iterator[str]:
        """The versions of a model that answer now; one without a version may have said which it is."""
        for entry in self._registry.versions(name):
            if entry.ready and entry.loaded is not None:
                yield from (
                    [entry.version] if entry.version else entry.loaded.info.metadata.versions or ()
                )

    def model_config(self, name: str, version: str | None = None) -> dict[str, Any]:
        """A minimal configuration in the form of Triton's, for clients that ask before they send."""
        entry = self._registry.find(name, version)
        loaded, pipeline = self._usable(entry)
        metadata = loaded.info.metadata
        batch_size = pipeline.max_batch_size if pipeline.max_batch_size > 1 else 0
        config: dict[str, Any] = {
            "name": entry.name,
            "platform": metadata.platform or "",
            "backend": "mlserver",
            "max_batch_size": batch_size,
            "input": [_config_tensor(tensor, bool(batch_size)) for tensor in metadata.inputs or []],
            "output": [
                _config_tensor(tensor, bool(batch_size)) for tensor in metadata.outputs or []
            ],
        }
        if batch_size:
            config["dynamic_batching"] = {}
        if (
            loaded.info.streams and not loaded.info.row_wise
        ):  # row by row, there is one answer to each request
            config["model_transaction_policy"] = {"decoupled": True}
        return config

    async def statistics(
        self, name: str | None = None, version: str | None = None
    ) -> dict[str, Any]:
        """Counts and nanoseconds per model version, in the form of the statistics extension."""
        if name is None:
            entries = self._registry.entries()
        elif version:
            entries = [self._registry.find(name, version)]
        else:
            entries = self._registry.versions(self._registry.find(name).name)
        counted = (
            [entry.statistics for entry in entries]
            if self._gather is None
            else await self._gather(entries)
        )
        rows = zip(entries, counted, strict=True)
        # Clients of the extension read versions as numbers; no folder of versions is called 0.
        return {
            "model_stats": [sums.to_plain(entry.name, entry.version or "0") for entry, sums in rows]
        }

    # -- inference --

    async def infer(
        self,
        payload: InferenceRequest,
        name: str,
        version: str | None = None,
        context: RequestContext | None = None,
    ) -> InferenceResponse:
        """Answer a request of the model.

        Args:
            context: Deadline, headers and the like; the timings of the answer are left in it.

        Raises:
            MLServerError: what the caller should hear of.
        """
        context = context or RequestContext()
        entry = self._registry.find(name, version)
        if version or entry.split is None:
            return await self._serve(entry, payload, context)
        chosen = self._router.select_version(entry, context)
        shadow = self._router.shadow_of(entry, chosen, payload)
        response = await self._serve(chosen, payload, context)
        if shadow is not None:
            self._router.ask_shadow(shadow, response, context)
        return response

    async def _serve(
        self, entry: ModelVersion, payload: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        """Answer a request by one version, counted."""
        started = time.perf_counter_ns()
        try:
            loaded, pipeline = entry.usable()
        except ModelNotReady as error:
            raise self._with_status(error) from None
        entry.metrics.request_started()
        try:
            check_request(payload, self._settings.max_inputs)
            self._prepare(payload, context, with_headers=not loaded.info.row_wise)
            response = await pipeline.infer(payload, context)
            if payload.outputs:
                select(response, payload.outputs, loaded.info.metadata.outputs or ())
        except BaseException as error:
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            raise
        self._finish(entry, payload, response, context)
        entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started)
        return response

    def has_streams(self, name: str, version: str | None = None) -> bool:
        """Whether the model has a way of its own with streams; else `infer` serves each request of one just as well."""
        loaded, _ = self._usable(self._registry.find(name, version))
        return loaded.info.streams

    async def infer_stream(
        self,
        payloads: AsyncIterator[InferenceRequest],
        name: str,
        version: str | None = None,
        context: RequestContext | None = None,
    ) -> AsyncIterator[InferenceResponse]:
        """Answer a stream of requests with a stream of responses; all carry the first request's id, and the outputs it wants.

        Raises:
            DeadlineExceeded: an answer took longer than a request may.
        """
        started = time.perf_counter_ns()
        context = context or RequestContext()
        entry = self._registry.find(name, version)
        if not version and entry.split is not None:
            entry = self._router.select_version(entry, context)
        loaded, pipeline = self._usable(entry)
        first: InferenceRequest | None = None
        patience = StreamDeadline(self._limit_of(entry))
        entry.metrics.request_started()

        async def checked() -> AsyncIterator[InferenceRequest]:
            nonlocal first
            async for payload in patience.asking(payloads):
                check_request(payload, self._settings.max_inputs)
                self._prepare(payload, context, with_headers=True)
                if first is None:
                    first = payload
                yield payload

        responses = pipeline.stream(checked(), context)
        try:
            async for response in patience.answering(responses):
                if first is not None and first.outputs:
                    select(response, first.outputs, loaded.info.metadata.outputs or ())
                self._finish(entry, first, response, context)
                yield response
        except TimeoutError:
            error = DeadlineExceeded(f"Model {entry.name} gave no answer in time")
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            raise error from None
        except BaseException as error:
            entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started, error)
            raise
        finally:
            await responses.aclose()  # type: ignore[attr-defined]
        entry.metrics.request_finished(context.timings, time.perf_counter_ns() - started)

    @property
    def generation(self) -> int:
        """Another number after each change of the models, and so perhaps of their routes."""
        return self._registry.generation

    def routes(self) -> list[ModelRoute]:
        """The REST paths that the default versions declare, in the order in which the models came."""
        return [own for entry in self._registry.defaults() for own in _routes(entry)]

    def get_routes(self, name: str, version: str | None = None) -> list[ModelRoute]:
        """The REST paths that one model declares; none if there is no such model."""
        try:
            return [
                ModelRoute(name, version, own.route)
                for own in _routes(self._registry.find(name, version))
            ]
        except ModelNotFound:
            return []

    def select_route(self, found: ModelRoute, context: RequestContext) -> Route:
        """The route of the version that will answer this request: versions may read and write the same path differently."""
        entry = self._registry.find(found.name, found.version)
        if found.version or entry.split is None:
            return found.route
        own = [other.route for other in _routes(self._router.select_version(entry, context))]
        same = [
            route
            for route in own
            if (route.path, route.method) == (found.route.path, found.route.method)
        ]
        return same[0] if same and same[0].wire else found.route

    async def wait_shadows_idle(self) -> None:
        """Wait until no shadow version works on a copy of a request."""
        await self._router.wait_idle()

    async def route(self, name: str, version: str | None, request: HTTPRequest) -> HTTPResponse:
        """Answer a request to one of a model's own REST paths."""
        entry = self._registry.find(name, version)
        loaded, _ = self._usable(entry)
        if self._settings.auth is not None:
            request.headers = [
                (name, value) for name, value in request.headers if name.decode() not in CREDENTIALS
            ]
        try:
            async with asyncio.timeout(self._limit_of(entry)):
                return await loaded.route(request, RequestContext())
        except TimeoutError:
            raise DeadlineExceeded(f"Request for model {entry.name} timed out") from None

    def _limit_of(self, entry: ModelVersion) -> float | None:
        return entry.settings.request_timeout or self._settings.request_timeout

    def _prepare(
        self, payload: InferenceRequest, context: RequestContext, with_headers: bool
    ) -> None:
        """Id, limits and headers. Models that see only rows (`row_wise`) get no headers: they cannot depend on them."""
        check_id(payload)
        if payload.id is None:
            payload.put(id=generate_id())
        parameters = payload.parameters
        if parameters is not None:
            extra = parameters.__pydantic_extra__ or {}
            seconds = seconds_of_timeout(extra.pop("timeout", None))
            if seconds is not None:
                asked = time.monotonic() + seconds
                context.deadline = (
                    asked if context.deadline is None else min(asked, context.deadline)
                )
            context.priority = priority_of(extra.pop("priority", None)) or context.priority
            parameters.put(headers=None)
        if with_headers and context.headers is not None:
            if parameters is None:
                parameters = Parameters()
                payload.put(parameters=parameters)
            headers = dict(context.headers)
            if self._settings.auth is not None:  # what opens this server is not for its models
                headers = {
                    name: value for name, value in headers.items() if name not in CREDENTIALS
                }
            parameters.put(headers=headers)

    @staticmethod
    def _finish(
        entry: ModelVersion,
        payload: InferenceRequest | None,
        response: InferenceResponse,
        context: RequestContext,
    ) -> None:
        version = response.model_version
        own_id = payload.id if payload is not None else generate_id()
        response.put(id=own_id, model_version=entry.version if version is None else version)
        parameters = response.parameters
        if parameters is not None and parameters.headers is not None:
            context.response_headers = parameters.headers
            parameters.put(headers=None)


def _routes(entry: ModelVersion) -> list[ModelRoute]:
    if entry.loaded is None:
        return []
    return [ModelRoute(entry.name, None, route) for route in entry.loaded.info.routes]


def _config_tensor(tensor: Any, batched: bool) -> dict[str, Any]:
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    dims = tensor.shape[1:] if batched and len(tensor.shape) > 1 else tensor.shape
    return {"name": tensor.name, "data_type": f"TYPE_{datatype}", "dims": list(dims)}


def generate_id() -> str:
    """A random UUID (version 4). Ids tell requests apart; they are no secret, so the fast generator does."""
    digits = f"{random.getrandbits(128) & ~0xF000C000000000000000 | 0x40008000000000000000:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
