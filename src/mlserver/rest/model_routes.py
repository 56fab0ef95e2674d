"""REST paths that models declare themselves, such as MLflow's `/invocations`.

A path that one model declares is answered by that model. If several declare it, the header `X-MLServer-Model` chooses,
else the setting `default_model`; else the request is refused with their names. Under `/v2/models/{name}/...` each model's
own paths are always reachable.
"""

from __future__ import annotations

import importlib
import re
import time
from typing import Any

from ..errors import MLServerError, ModelNotReady
from ..execution.executor import HTTPRequest
from ..handlers import DataPlane
from ..handlers.dataplane import ModelRoute
from ..stage import Call
from ..wire.headers import server_timing
from .messages import RawHeaders, Reply, Request, header_value
from .routing import MethodNotAllowed

MODEL_HEADER = b"x-mlserver-model"
_UNDER_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<path>/.+)")


class ModelRoutes:
    """Answers the paths of models."""

    def __init__(self, data_plane: DataPlane, default_model: str | None) -> None:
        self._data_plane = data_plane
        self._default_model = default_model

    def match(self, request: Request) -> ModelRoute | None:
        """The model and route that answer a request; None if no model declares such a path.

        Raises:
            MethodNotAllowed: models declare the path with other methods only.
            MLServerError: several models declare it and nothing says which one is meant.
        """
        under = _UNDER_MODEL.fullmatch(request.path)
        if under is not None:
            found = self._data_plane.routes_of(under["name"], under["version"])
            return self._with_method(request, [own for own in found if matches(own.route.path, under["path"])])
        declared = [own for own in self._data_plane.routes() if matches(own.route.path, request.path)]
        return self._with_method(request, declared)

    def _with_method(self, request: Request, declared: list[ModelRoute]) -> ModelRoute | None:
        if not declared:
            return None
        found = [own for own in declared if own.route.method == request.method]
        if not found:
            raise MethodNotAllowed(request.method, request.path, sorted({own.route.method for own in declared}))
        if len(found) == 1:
            return found[0]
        return self._choose(request, found)

    def _choose(self, request: Request, found: list[ModelRoute]) -> ModelRoute:
        names = [own.name for own in found]
        header = request.header(MODEL_HEADER)
        wanted = header.decode("latin-1") if header is not None else self._default_model
        if wanted in names:
            return found[names.index(wanted)]
        if all(own.route.static is not None for own in found):
            return found[0]
        listed = ", ".join(f"'{name}'" for name in names)
        raise MLServerError(
            f"Several models answer {request.path}: {listed}. Use /v2/models/NAME{request.path}, "
            f"the header X-MLServer-Model or the setting 'default_model'"
        )

    async def answer(self, found: ModelRoute, request: Request) -> Reply:
        """Answer a request that `match` found a route for."""
        route = found.route
        if route.static is not None:
            if not await self._data_plane.model_ready(found.name, found.version):
                raise ModelNotReady(found.name, found.version)
            return Reply(200, route.static.encode(), route.content_type)
        if route.wire:
            return await self._answer_by_wire(found, request)
        path = _own_path(request.path)
        forwarded = HTTPRequest(request.method, path, request.query, request.raw_headers, request.body)
        answer = await self._data_plane.route(found.name, found.version, forwarded)
        kept = [(name, value) for name, value in answer.headers if name not in (b"content-length", b"content-type")]
        content_type = dict(answer.headers).get(b"content-type", b"").decode("latin-1")
        return Reply(answer.status, answer.body, content_type, kept)

    async def _answer_by_wire(self, found: ModelRoute, request: Request) -> Reply:
        """The body is one more wire format; the request goes down the model's ordinary road."""
        wire: Any = importlib.import_module(found.route.wire)
        config = found.route.config
        content_type = request.header(b"content-type")
        call = Call(headers=request.headers)
        started = time.perf_counter_ns()
        try:
            payload = wire.read_request(
                request.body, "" if content_type is None else content_type.decode("latin-1"), config
            )
            codec_ns = time.perf_counter_ns() - started
            response = await self._data_plane.infer(payload, found.name, found.version, call)
            started = time.perf_counter_ns()
            status, body, media_type = wire.write_response(response, config)
            codec_ns += time.perf_counter_ns() - started
        except MLServerError as problem:
            status, body, media_type = wire.write_error(problem, config)
            headers = retry_after(problem)
        else:
            headers = [(b"server-timing", server_timing(call.timings, codec_ns).encode())]
            if response.model_version:
                headers.append((b"x-mlserver-model-version", header_value(response.model_version)))
        return Reply(status, body, media_type, headers)


def retry_after(problem: MLServerError) -> RawHeaders:
    """The header that says when to come back, if the error knows."""
    seconds = getattr(problem, "retry_after", None)
    return [] if seconds is None else [(b"retry-after", b"%d" % max(1, round(seconds)))]


def _own_path(path: str) -> str:
    under = _UNDER_MODEL.fullmatch(path)
    return under["path"] if under is not None else path


def matches(template: str, path: str) -> bool:
    """Whether a path fits a template in FastAPI's form: `{name}` is one segment, `{name:path}` any number."""
    if template == path:
        return True
    if "{" not in template:
        return False
    parts = re.split(r"(\{[^}]*\})", template)
    pattern = "".join(
        re.escape(part) if not part.startswith("{") else (".+" if part.endswith(":path}") else "[^/]+")
        for part in parts
    )
    return re.fullmatch(pattern, path) is not None
