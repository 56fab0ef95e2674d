"""Runs models on the event loop it is called on: in a worker process, or in a thread of the server.

The runner holds `MLModel` instances by a key that the executor chose. It is the only caller of user code.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ..context import model_context
from ..errors import DeadlineExceeded, InferenceError, MLServerError, ModelFailed, ModelNotFound, without_paths
from ..logging import get_logger
from ..settings import ModelSettings
from ..stage import Call
from ..tensor import TensorError
from ..types import InferenceRequest, InferenceResponse
from .executor import HTTPRequest, HTTPResponse, ModelInfo

if TYPE_CHECKING:
    from ..model import MLModel
    from .route_app import RouteApp

logger = get_logger()


class Runner:
    """Models, and the five things one can do with them: load, infer, stream, route, unload."""

    def __init__(self) -> None:
        self._models: dict[str, MLModel] = {}
        self._apps: dict[str, RouteApp] = {}

    async def load(self, key: str, settings: ModelSettings) -> ModelInfo:
        """Import the implementation, make the model and load it.

        Raises:
            MLServerError: the implementation cannot be imported, or `load()` raised; the traceback is in the log.
        """
        started = time.perf_counter()
        with model_context(settings):
            implementation = _implementation(settings)
            try:
                model = implementation(settings)
                ready = await model.load()
                model.ready = bool(ready)
                info = await _describe(model, bool(ready))
            except BaseException as problem:
                if not _is_models_own(problem):
                    raise
                logger.exception("Model '%s' failed to load", settings.name)
                raise ModelFailed(f"Model {settings.name} failed to load: {_text(problem)}") from problem
        self._models[key] = model
        return replace(info, load_seconds=time.perf_counter() - started)

    async def infer(self, key: str, request: InferenceRequest, call: Call) -> InferenceResponse:
        """The model's `predict`. A request that comes after its deadline is not run."""
        if call.trace_parent is not None:
            from ..tracing import resumed

            with resumed(call.trace_parent):
                return await self._infer(key, request, call)
        return await self._infer(key, request, call)

    async def _infer(self, key: str, request: InferenceRequest, call: Call) -> InferenceResponse:
        model = self._model(key)
        if call.deadline is not None and time.monotonic() >= call.deadline:
            raise DeadlineExceeded(f"Request for model {model.name} timed out before the model could run it")
        with model_context(model.settings, call.members):
            try:
                # A plain function is taken too, which is what `decode_args` makes of one.
                response: object = model.predict(request)
                if inspect.isawaitable(response):
                    response = await response
            except BaseException as problem:
                if not _is_models_own(problem):
                    raise
                raise _failed(model, problem) from problem
        return _checked(model, response)

    async def stream(self, key: str, requests: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        """The model's `predict_stream`."""
        model = self._model(key)
        with model_context(model.settings):
            responses = model.predict_stream(requests)
            try:
                async for response in responses:
                    yield _checked(model, response)
            except BaseException as problem:
                if not _is_models_own(problem):
                    raise
                raise _failed(model, problem) from problem
            finally:
                close = getattr(responses, "aclose", None)
                if close is not None:
                    await close()

    async def route(self, key: str, request: HTTPRequest) -> HTTPResponse:
        """Answer one of the model's own REST paths."""
        model = self._model(key)
        app = self._apps.get(key)
        if app is None:
            from .route_app import RouteApp

            app = self._apps[key] = RouteApp(model)
        with model_context(model.settings):
            try:
                return await app(request)
            except BaseException as problem:
                if not _is_models_own(problem):
                    raise
                raise _failed(model, problem) from problem

    async def unload(self, key: str) -> bool:
        """Drop the model and call its `unload`. What that returns, or True for a key nobody knows."""
        model = self._models.pop(key, None)
        self._apps.pop(key, None)
        if model is None:
            return True
        with model_context(model.settings):
            try:
                done = bool(await model.unload())
                model.ready = not done
                return done
            except Exception:
                logger.exception("Model '%s' failed to unload", model.name)
                return False

    def _model(self, key: str) -> MLModel:
        try:
            return self._models[key]
        except KeyError:
            raise ModelNotFound(key.partition("#")[0]) from None


async def _describe(model: MLModel, ready: bool) -> ModelInfo:
    from ..model import MLModel

    return ModelInfo(
        metadata=await model.metadata(),
        routes=tuple(model.routes()),
        ready=ready,
        row_wise=bool(model.row_wise),
        streams=type(model).predict_stream is not MLModel.predict_stream,
    )


def _is_models_own(problem: BaseException) -> bool:
    """Whether a model failed, rather than refused in words of its own or was stopped from outside.

    A model may call `sys.exit`, or let a cancellation of its own escape: to its caller that is a failure like any other,
    and it must end neither this process nor the loop that all models share.
    """
    if isinstance(problem, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return isinstance(problem, (Exception, SystemExit)) and not isinstance(problem, MLServerError)


def _implementation(settings: ModelSettings) -> type[MLModel]:
    path = settings.implementation_
    try:
        implementation: type[MLModel] = settings.implementation
        return implementation
    except ModuleNotFoundError as problem:
        if problem.name and f"{path}.".startswith(f"{problem.name}."):
            raise MLServerError(f"Unknown implementation '{path}': no module named '{problem.name}'", 500) from None
        raise MLServerError(f"Implementation '{path}' cannot be imported: {_text(problem)}", 500) from None
    except MLServerError:
        raise
    except Exception as problem:
        logger.exception("Implementation '%s' cannot be imported", path)
        raise MLServerError(f"Implementation '{path}' cannot be imported: {_text(problem)}", 500) from problem


def _checked(model: MLModel, response: object) -> InferenceResponse:
    # The first test is quick; pydantic's own isinstance is not, and only subclasses need it.
    if type(response) is not InferenceResponse and not isinstance(response, InferenceResponse):
        raise InferenceError(f"Model '{model.name}' returned no predictions after inference", 500)
    for output in response.outputs:
        try:
            output.data.settle(str(output.datatype), output.shape)
        except TensorError as problem:
            raise ModelFailed(f"Model {model.name} returned output '{output.name}' that is wrong: {problem}") from None
    return response


def _failed(model: MLModel, problem: BaseException) -> MLServerError:
    logger.warning("Model '%s' failed to predict", model.name, exc_info=problem)
    return ModelFailed(f"Model {model.name} failed to predict: {without_paths(_text(problem))}")


def _text(problem: BaseException) -> str:
    """Type and message of the model's own exception."""
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
