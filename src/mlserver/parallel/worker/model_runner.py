"""Calls the models of a process on the current event loop.

The runner holds `MLModel` instances by the executor's keys. It is the only caller of user code.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...context import model_context
from ...errors import (
    DeadlineExceeded,
    MLServerError,
    ModelNotFound,
)
from ...log_context import LogContext, read_raw_headers
from ...logging import get_logger
from ...pipeline import RequestContext
from ...settings import ModelSettings
from ...types import InferenceRequest, InferenceResponse, MetadataModelResponse
from ..executor import HTTPRequest, HTTPResponse, ModelInfo
from ..model_unload import unload_exceeded
from ..rpc.protocol import is_encodable
from .implementations import import_libraries
from .load_timer import LoadTimer
from .missing_modules import advise_missing_module
from .model_contract import check_response, create_model, load_model
from .model_failures import is_stop, log, to_error
from .model_info import get_metadata, read_info
from .model_methods import ModelMethods, note_ids

if TYPE_CHECKING:
    from ...model import MLModel
    from .custom_routes_app import RouteApp


logger = get_logger()


class ModelRunner:
    """The models of a process.

    Args:
        on_stalled: Called on the loop with the key of a model whose threads are all in calls that
            exceed the model's `request_timeout`.
        on_abandoned: Called on the loop with the key of a model and the number of its functions
            that run although their callers are gone, after each change.

    Attributes:
        request_timeout: Seconds, for models without a `request_timeout` of their own; None = no
            limit.
        unload_timeout: Seconds that a model has to end its calls and to unload; None = no limit.
        is_traced: Whether spans of the models' code join the traces of their requests.
    """

    is_traced = False
    request_timeout: float | None = None
    unload_timeout: float | None = None

    def __init__(
        self,
        on_stalled: Callable[[str], None] | None = None,
        on_abandoned: Callable[[str, int], None] | None = None,
    ) -> None:
        self._on_stalled = on_stalled
        self._on_abandoned = on_abandoned
        self._models: dict[str, ModelMethods] = {}
        self._apps: dict[str, RouteApp] = {}
        self._load_timer = LoadTimer()

    async def load(
        self, key: str, settings: ModelSettings, trial_results: dict[str, Any] | None = None
    ) -> ModelInfo:
        """Import the implementation, create the model and load it.

        Args:
            trial_results: Those of another worker's load, see `MLModel`.

        Raises:
            MLServerError: the implementation cannot be imported, or `load()` raised.
        """
        info, seconds = await self._load_timer.measure(self._load(key, settings, trial_results))
        return replace(info, load_seconds=seconds)

    async def _load(
        self, key: str, settings: ModelSettings, trial_results: dict[str, Any] | None
    ) -> ModelInfo:
        with model_context(settings):
            task = asyncio.current_task()
            try:
                import_libraries(settings)
                model = create_model(settings)
                model.trial_results = trial_results
                model.ready = await load_model(model)
                info = await read_info(model, model.ready)
                methods = self._prepare_methods(key, model)
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise _to_load_error(error, settings) from error
        self._models[key] = methods
        return info

    def _prepare_methods(self, key: str, model: MLModel) -> ModelMethods:
        limit = model.settings.request_timeout or self.request_timeout
        methods = ModelMethods(model, limit, partial(self._report_stalled, key))
        if self._on_abandoned is not None:
            methods.threads.on_abandoned = partial(self._on_abandoned, key)
        return methods

    def _report_stalled(self, key: str) -> None:
        methods = self._models.get(key)
        if methods is None:
            return
        logger.error("Model '%s': %s", methods.model.name, methods.stall_reason)
        if self._on_stalled is not None:
            self._on_stalled(key)

    async def infer(
        self, key: str, request: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        """Return the response of the model's `predict`.

        Raises:
            DeadlineExceeded: the deadline has passed; the model is not called.
        """
        if self.is_traced and context.trace_parent is not None:
            from ...tracing import use_trace_parent

            with use_trace_parent(context.trace_parent):
                return await self._infer(key, request, context)
        return await self._infer(key, request, context)

    async def _infer(
        self, key: str, request: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        methods = self._get_methods(key)
        model = methods.model
        if context.deadline is not None and time.monotonic() >= context.deadline:
            raise DeadlineExceeded(
                f"Request for model {model.name} timed out before the model could run it"
            )
        task = asyncio.current_task()
        log_context = LogContext(request.id or "", context.trace_parent, context.joined_ids)
        with model_context(model.settings, context.rows_per_request, log_context):
            try:
                return check_response(model, await methods.predict(request))
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(error, f"Model {model.name} failed to predict") from error

    async def stream(
        self, key: str, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        """Yield the responses of the model's `predict_stream`."""
        methods = self._get_methods(key)
        model = methods.model
        log_context = LogContext(trace_parent=context.trace_parent)
        requests = note_ids(requests, log_context)
        with model_context(model.settings, (), log_context):
            responses: Any = None
            try:
                while True:
                    task = asyncio.current_task()
                    try:
                        if responses is None:
                            responses = methods.predict_stream(requests)
                        with methods.calls:
                            response = check_response(model, await anext(responses))
                    except StopAsyncIteration:
                        return
                    except BaseException as error:
                        if is_stop(error, task):
                            raise
                        raise to_error(error, f"Model {model.name} failed to predict") from error
                    # Outside of `try`: an exception raised here is the reader's.
                    yield response
            finally:
                await _close_stream(model, responses)

    async def route(self, key: str, request: HTTPRequest) -> HTTPResponse:
        """Return the response of one of the model's custom REST paths."""
        methods = self._get_methods(key)
        model = methods.model
        task = asyncio.current_task()
        with model_context(model.settings, (), read_raw_headers(request.headers)):
            try:
                app = self._apps.get(key)
                if app is None:
                    app = self._apps[key] = _create_route_app(methods)
                with methods.calls:
                    return await app(request)
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(
                    error, f"Model {model.name} failed to answer {request.path}"
                ) from error

    async def metadata(self, key: str) -> MetadataModelResponse:
        """Return the model's current metadata."""
        model = self._get_methods(key).model
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                metadata = await get_metadata(model)
                if not is_encodable(metadata.model_dump()):
                    raise TypeError("metadata() has a value that cannot be serialized")
                return metadata
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(error, f"Model {model.name} failed to give its metadata") from error

    async def resolve_source(self, key: str, uri: str) -> str:
        """Return what the model's `resolve_source` returns."""
        model = self._get_methods(key).model
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                return str(await model.resolve_source(uri))
            except BaseException as error:
                if is_stop(error, task):
                    raise
                raise to_error(error, f"Model {model.name} failed to resolve '{uri}'") from error

    def is_ready(self, key: str) -> bool:
        """Whether the model's `ready` is true."""
        methods = self._models.get(key)
        try:
            return methods is not None and bool(methods.model.ready)
        except BaseException:  # `ready` may be a property of the model's class
            return False

    def get_stall_reason(self, key: str) -> str | None:
        """Return why no request of the model can run at present; None if one can."""
        methods = self._models.get(key)
        return methods.stall_reason if methods is not None else None

    def get_time_limit(self, key: str) -> float | None:
        """Return the seconds that a request of the model may take; None = no limit."""
        methods = self._models.get(key)
        return methods.threads.stall_seconds if methods is not None else None

    def list_limited_to(self, seconds: float) -> list[str]:
        """Return the names of the models whose requests may take less than `seconds`."""
        models = list(self._models.values())  # another thread may load one
        limits = [(methods.model.name, methods.threads.stall_seconds) for methods in models]
        return [name for name, limit in limits if limit is not None and limit < seconds]

    def find_caller(self, task: asyncio.Task[Any] | None) -> str | None:
        """Return the name of the model that a task runs a coroutine of."""
        for methods in list(self._models.values()):
            if task in methods.calls:
                return methods.model.name
        return None

    def count_abandoned(self, key: str) -> int:
        """Return how many functions of the model run although their callers are gone."""
        methods = self._models.get(key)
        return methods.threads.abandoned if methods is not None else 0

    async def unload(self, key: str) -> bool:
        """Remove the model and call its `unload` after its running calls.

        Coroutines are cancelled, functions in threads are waited for.

        Returns:
            The result of the model's `unload`; True for an unknown key.

        Raises:
            MLServerError: the model's `unload` raised, or `unload_timeout` passed; the model is
                removed nevertheless.
        """
        methods = self._models.pop(key, None)
        self._apps.pop(key, None)
        if methods is None:
            return True
        model = methods.model
        task = asyncio.current_task()
        with model_context(model.settings):
            try:
                async with asyncio.timeout(self.unload_timeout) as timeout:
                    await methods.calls.close()
                    await methods.threads.wait_idle()
                    is_unloaded = bool(await model.unload())
                model.ready = not is_unloaded
                return is_unloaded
            except BaseException as error:
                if is_stop(error, task):
                    raise
                if timeout.expired() and isinstance(error, TimeoutError):
                    raise unload_exceeded(model.name, self.unload_timeout) from None
                raise to_error(
                    error, f"Model {model.name} was unloaded, but its unload() failed"
                ) from error
            finally:
                methods.threads.close()

    def _get_methods(self, key: str) -> ModelMethods:
        try:
            return self._models[key]
        except KeyError:
            raise ModelNotFound(key.partition("#")[0]) from None


async def _close_stream(model: MLModel, responses: Any) -> None:
    """Close the model's generator, which may hold files or locks; its exceptions are logged."""
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


def _to_load_error(error: BaseException, settings: ModelSettings) -> MLServerError:
    """Return the error of a load, with advice if a module is missing.

    The registry logs it; DEBUG has the traceback.
    """
    load_error = to_error(error, f"Model {settings.name} failed to load", logging.DEBUG)
    advice = advise_missing_module(error, settings)
    if advice is None:
        return load_error
    return MLServerError(
        f"{load_error.message}. {advice}",
        load_error.status_code,
        code=load_error.code,
        details=load_error.details,
    )


def _create_route_app(methods: ModelMethods) -> RouteApp:
    """Return the application of the model's custom routes.

    Raises:
        MLServerError: FastAPI is not installed in the environment of the model.
    """
    try:
        from .custom_routes_app import RouteApp
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette"):
            raise
        raise MLServerError(
            f"Model '{methods.model.name}': custom routes need FastAPI in the environment of the "
            "model: pip install fastapi",
            500,
        ) from None
    return RouteApp(methods.model, methods.calls)
