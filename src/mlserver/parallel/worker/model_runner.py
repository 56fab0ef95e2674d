"""Runs models on the event loop it is called on: in a worker process, or in a thread of the server.

The runner holds `MLModel` instances by a key that the executor chose. It is the only caller of user code.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...context import model_context
from ...errors import (
    DeadlineExceeded,
    InferenceError,
    MLServerError,
    ModelFailed,
    ModelNotFound,
    describe,
)
from ...pipeline import RequestContext
from ...settings import ModelSettings
from ...tensor import TensorError
from ...types import InferenceRequest, InferenceResponse, MetadataModelResponse
from ..executor import HTTPRequest, HTTPResponse, ModelInfo
from ..rpc.protocol import is_encodable
from .load_timer import LoadTimer
from .missing_modules import explain_missing
from .model_failures import is_stop, log, to_error

if TYPE_CHECKING:
    from ...model import MLModel
    from .custom_routes_app import RouteApp


class ModelRunner:
    """Models, and the five things one can do with them: load, infer, stream, route, unload."""

    def __init__(self) -> None:
        self._models: dict[str, MLModel] = {}
        self._apps: dict[str, RouteApp] = {}
        self._load_clock = LoadTimer()

    async def load(self, key: str, settings: ModelSettings) -> ModelInfo:
        """Import the implementation, make the model and load it.

        Raises:
            MLServerError: the implementation cannot be imported, or `load()` raised; the traceback is in the log.
        """
        info, seconds = await self._load_clock.measure(self._load(key, settings))
        return replace(info, load_seconds=seconds)

    async def _load(self, key: str, settings: ModelSettings) -> ModelInfo:
        with model_context(settings):
            task = asyncio.current_task()
            try:
                model = _implementation(settings)(settings)
                ready = await model.load()
                model.ready = bool(ready)
                info = await _describe(model, bool(ready))
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise _load_error(error, settings) from error
        self._models[key] = model
        return info

    async def infer(
        self, key: str, request: InferenceRequest, call: RequestContext
    ) -> InferenceResponse:
        """The model's `predict`. A request that comes after its deadline is not run."""
        if call.trace_parent is not None:
            from ...tracing import use_trace_parent

            with use_trace_parent(call.trace_parent):
                return await self._infer(key, request, call)
        return await self._infer(key, request, call)

    async def _infer(
        self, key: str, request: InferenceRequest, call: RequestContext
    ) -> InferenceResponse:
        model = self._model(key)
        if call.deadline is not None and time.monotonic() >= call.deadline:
            raise DeadlineExceeded(
                f"Request for model {model.name} timed out before the model could run it"
            )
        task = asyncio.current_task()
        with model_context(model.settings, call.rows_per_request):
            try:
                # A plain function is taken too, which is what `decode_args` makes of one.
                response: object = model.predict(request)
                if inspect.isawaitable(response):
                    response = await response
                return _checked(model, response)
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(error, f"Model {model.name} failed to predict") from error

    async def stream(
        self, key: str, requests: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """The model's `predict_stream`."""
        model = self._model(key)
        with model_context(model.settings):
            responses: Any = None
            try:
                while True:
                    task = asyncio.current_task()
                    try:
                        if responses is None:
                            responses = aiter(model.predict_stream(requests))
                        response = _checked(model, await anext(responses))
                    except StopAsyncIteration:
                        return
                    except BaseException as error:
                        if is_stop(error, task):
                            raise
                        raise to_error(error, f"Model {model.name} failed to predict") from error
                    # Outside: what is raised here comes from the reader of the stream.
                    yield response
            finally:
                await _close_stream(model, responses)

    async def route(self, key: str, request: HTTPRequest) -> HTTPResponse:
        """Answer one of the model's own REST paths."""
        model = self._model(key)
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                app = self._apps.get(key)
                if app is None:
                    app = self._apps[key] = _make_route_app(model)
                return await app(request)
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(
                    error, f"Model {model.name} failed to answer {request.path}"
                ) from error

    async def metadata(self, key: str) -> MetadataModelResponse:
        """Return what the model says of itself now."""
        model = self._model(key)
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                metadata = await _metadata(model)
                if not is_encodable(metadata.model_dump()):
                    raise TypeError("metadata() has a value that cannot be sent")
                return metadata
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(error, f"Model {model.name} failed to give its metadata") from error

    def is_ready(self, key: str) -> bool:
        """Whether the model's own `ready` says so."""
        model = self._models.get(key)
        try:
            return model is not None and bool(model.ready)
        except BaseException:  # a property of the model's
            return False

    async def unload(self, key: str) -> bool:
        """Drop the model and call its `unload`.

        Returns:
            What the model's `unload` returned; True for an unknown key.

        Raises:
            MLServerError: the model's `unload` raised; the model is dropped all the same.
        """
        model = self._models.pop(key, None)
        self._apps.pop(key, None)
        if model is None:
            return True
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                done = bool(await model.unload())
                model.ready = not done
                return done
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(
                    error, f"Model {model.name} was unloaded, but its unload() failed"
                ) from error

    def _model(self, key: str) -> MLModel:
        try:
            return self._models[key]
        except KeyError:
            raise ModelNotFound(key.partition("#")[0]) from None


async def _describe(model: MLModel, ready: bool) -> ModelInfo:
    """What the server keeps of a loaded model. Raises whatever the model's own methods do."""
    from ...custom_routes import Route
    from ...model import MLModel

    metadata = await _metadata(model)
    routes = tuple(model.routes())
    if not all(isinstance(route, Route) for route in routes):
        raise TypeError("routes() must return a list of Route")
    info = ModelInfo(
        metadata=metadata,
        routes=routes,
        ready=ready,
        row_wise=bool(model.row_wise),
        streams=type(model).predict_stream is not MLModel.predict_stream,
    )
    if not is_encodable(info.to_plain()):
        raise TypeError("metadata() or routes() has a value that cannot be sent")
    return info


async def _metadata(model: MLModel) -> MetadataModelResponse:
    metadata: object = await model.metadata()
    if not isinstance(metadata, MetadataModelResponse):
        raise TypeError(
            f"metadata() must return MetadataModelResponse, not {type(metadata).__name__}"
        )
    return metadata


async def _close_stream(model: MLModel, responses: Any) -> None:
    """Let the model's generator end; it may hold files or locks. What it raises has no reader."""
    close = getattr(responses, "aclose", None)
    if close is None:
        return
    task = asyncio.current_task()
    try:
        await close()
    except BaseException as error:
        if is_stop(error, task):
            raise
        log(f"Model {model.name} failed at the end of a stream", error)


def _load_error(error: BaseException, settings: ModelSettings) -> MLServerError:
    """The error of a load, with what to install if a module is missing. The registry logs it; only DEBUG has more."""
    found = to_error(error, f"Model {settings.name} failed to load", logging.DEBUG)
    advice = explain_missing(error, settings)
    if advice is None:
        return found
    return MLServerError(
        f"{found.message}. {advice}", found.status_code, code=found.code, details=found.details
    )


def _implementation(settings: ModelSettings) -> type[MLModel]:
    path = settings.implementation_
    try:
        implementation: type[MLModel] = settings.implementation
        return implementation
    except ModuleNotFoundError as exc:
        if exc.name and f"{path}.".startswith(f"{exc.name}."):
            raise MLServerError(
                f"Unknown implementation '{path}': no module named '{exc.name}'", 500
            ) from None
        raise MLServerError(
            f"Implementation '{path}' cannot be imported: {describe(exc)}", 500
        ) from None
    except MLServerError:
        raise
    except BaseException as error:
        if is_stop(error, asyncio.current_task()):
            raise
        log(f"Implementation '{path}' cannot be imported", error, logging.DEBUG)
        raise MLServerError(
            f"Implementation '{path}' cannot be imported: {describe(error)}", 500
        ) from error


def _make_route_app(model: MLModel) -> RouteApp:
    """The model's own REST paths. Raises `MLServerError` if FastAPI is not installed where the model runs."""
    try:
        from .custom_routes_app import RouteApp
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette"):
            raise
        raise MLServerError(
            f"Model '{model.name}': custom routes need FastAPI in the environment of the model: pip install fastapi",
            500,
        ) from None
    return RouteApp(model)


def _checked(model: MLModel, response: object) -> InferenceResponse:
    # The first test is quick; pydantic's own isinstance is not, and only subclasses need it.
    if type(response) is not InferenceResponse and not isinstance(response, InferenceResponse):
        raise InferenceError(f"Model '{model.name}' returned no predictions after inference", 500)
    if not isinstance(response.outputs, list):
        kind = type(response.outputs).__name__
        raise ModelFailed(
            f"Model {model.name} returned outputs that are wrong: expected a list, received {kind}"
        )
    for output in response.outputs:
        try:
            output.data.normalize(str(output.datatype), output.shape)
        except TensorError as error:
            raise ModelFailed(
                f"Model {model.name} returned output '{output.name}' that is wrong: {error}"
            ) from None
    return response
