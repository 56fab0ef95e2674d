"""Calls a model's own REST paths where the model lives: a small FastAPI application that never opens a socket.

FastAPI gives custom handlers their parameter injection (body, path, query, header, `Request`, `Depends`). It is imported
only when a model has such a handler and a request for it arrives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...custom_routes import get_custom_handlers
from ...errors import MLServerError, describe
from ..executor import HTTPRequest, HTTPResponse
from .model_failures import log, plain_error

if TYPE_CHECKING:
    from ...model import MLModel


class TextJSONResponse(JSONResponse):
    """JSON in which bytes are written as the text they hold."""

    def render(self, content: Any) -> bytes:
        return super().render(_text(content))


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    return value


class RouteApp:
    """The routes of one model."""

    def __init__(self, model: MLModel) -> None:
        # As in MLServer 1.x, a body without a content type is JSON; FastAPI from 0.132 on asks for one.
        options: dict[str, Any] = {"strict_content_type": False}
        self._app = FastAPI(openapi_url=None, default_response_class=TextJSONResponse, **options)
        for handler, method in get_custom_handlers(model):
            self._app.add_api_route(handler.rest_path, method, methods=[handler.rest_method])
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
        answer = HTTPResponse(500, [], b"")
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return body.pop() if body else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [
                    (bytes(name), bytes(value)) for name, value in message.get("headers", [])
                ]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        except Exception as error:
            log("A custom handler failed", error)
            raise MLServerError(
                f"The handler of {request.path} failed: {describe(error)}", 500
            ) from None
        answer.body = b"".join(parts)
        return answer


async def _server_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, MLServerError)
    error = plain_error(exc)
    return JSONResponse({"error": error.message}, error.status_code)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    faults: Any = error.errors()
    try:
        faults = jsonable_encoder(faults, custom_encoder=_ENCODERS)
    except RecursionError:
        faults = [{key: fault[key] for key in ("type", "loc", "msg")} for fault in faults]
    return JSONResponse({"error": f"Invalid {field}: {first['msg']}", "detail": faults}, 422)


def _finite_or_text(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


# Faults quote the body. FastAPI's encoder knows Python's types, but not that bytes may be no text,
# text no Unicode, and numbers not finite: each of these would end the answer with an exception.
_ENCODERS: dict[Any, Any] = {
    bytes: lambda data: data.decode("utf-8", "replace"),
    str: lambda text: text.encode("utf-8", "replace").decode(),
    float: _finite_or_text,
}
