"""FastAPI application for a model's custom routes, called without a socket.

FastAPI provides the parameter injection of custom handlers (body, path, query, header, `Request`,
`Depends`). It is imported when the first request for such a handler arrives.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...custom_routes import get_custom_handlers
from ...errors import MLServerError, format_exception, remove_paths
from ...model_threads import get_threads, is_plain_function
from ..executor import HTTPRequest, HTTPResponse
from .coroutine_calls import CoroutineCalls
from .model_failures import log, plain_error

if TYPE_CHECKING:
    from ...model import MLModel


class TextJSONResponse(JSONResponse):
    """JSON response that writes bytes as UTF-8 text."""

    def render(self, content: Any) -> bytes:
        return super().render(_decode_bytes(content))


def _decode_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _decode_bytes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_decode_bytes(item) for item in value]
    return value


class RouteApp:
    """The custom routes of one model.

    Args:
        calls: Entered by the caller around each request.
    """

    def __init__(self, model: MLModel, calls: CoroutineCalls) -> None:
        # As in MLServer 1.x, a body without a content type is JSON; FastAPI 0.132 and later require
        # one.
        options: dict[str, Any] = {"strict_content_type": False}
        self._app = FastAPI(openapi_url=None, default_response_class=TextJSONResponse, **options)
        for handler, method in get_custom_handlers(model):
            is_plain = is_plain_function(method)
            endpoint = _run_in_thread(model, calls, method) if is_plain else method
            self._app.add_api_route(handler.rest_path, endpoint, methods=[handler.rest_method])
        self._app.add_exception_handler(MLServerError, _server_error)
        self._app.add_exception_handler(RequestValidationError, _invalid_request)

    async def __call__(self, request: HTTPRequest) -> HTTPResponse:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": None,
            "server": None,
        }
        body = [{"type": "http.request", "body": request.body, "more_body": False}]
        response = HTTPResponse(500, [], b"")
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return body.pop() if body else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                response.status = message["status"]
                pairs = message.get("headers", [])
                response.headers = [(bytes(name), bytes(value)) for name, value in pairs]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        except Exception as error:
            log("A custom handler failed", error)
            raise MLServerError(
                f"The handler of {request.path} failed: {remove_paths(format_exception(error))}",
                500,
            ) from None
        response.body = b"".join(parts)
        return response


def _run_in_thread(
    model: MLModel, calls: CoroutineCalls, method: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a coroutine function that runs a plain handler in a thread of the model.

    FastAPI would run it in threads that all models share, and beside the model's `max_concurrency`.
    """
    try:
        signature = inspect.signature(method, eval_str=True)
    except Exception:  # names that only a type checker resolves: FastAPI reports them
        return method

    async def run(*args: Any, **options: Any) -> Any:
        with calls.exclude():
            return await get_threads(model).call(partial(method, *args, **options))

    functools.update_wrapper(run, method, updated=())
    del run.__wrapped__  # type: ignore[attr-defined] # FastAPI would read the original's hints
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


async def _server_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, MLServerError)
    error = plain_error(exc)
    return JSONResponse({"error": error.message}, error.status_code)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    details: Any = error.errors()
    try:
        details = jsonable_encoder(details, custom_encoder=_ENCODERS)
    except RecursionError:
        details = [
            {"type": item["type"], "loc": item["loc"], "msg": item["msg"]} for item in details
        ]
    return JSONResponse({"error": f"Invalid {field}: {first['msg']}", "detail": details}, 422)


def _finite_or_text(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


# Validation errors quote the body. FastAPI's encoder raises for bytes that are not UTF-8, for lone
# surrogates, and for numbers that are not finite.
_ENCODERS: dict[Any, Any] = {
    bytes: lambda data: data.decode("utf-8", "replace"),
    str: lambda text: text.encode("utf-8", "replace").decode(),
    float: _finite_or_text,
}
