"""Routes that models declare, such as `/invocations`: which model answers a request, and
the reply.

A path that one model declares is that model's. Among several, the header `X-MLServer-Model`
selects, else the body if its format names a model, else the setting `default_model`; else the
request is an error that lists them. A body that names a model which does not declare the path is an
error too, even if only one model declares it. Each model's routes are also served under
`/v2/models/{name}/...`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import NamedTuple

from ...errors import MLServerError, ModelNotFound, Unavailable
from ...handlers import DataPlane
from ...handlers.dataplane import ModelRoute
from ...parallel.executor import HTTPRequest
from ...tensor import brief
from ..bounded_cache import BoundedCache
from ..hints import get_hint
from ..messages import Reply, Request, model_headers, split_content_type
from ..routing import MethodNotAllowed, decode_segment
from . import wire

MODEL_HEADER = b"x-mlserver-model"
_MODEL_PATH = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<path>/.+)"
)


class ModelRoutes:
    """Matches requests with the routes of loaded models, and answers them."""

    def __init__(self, data_plane: DataPlane, default_model: str | None) -> None:
        self._data_plane = data_plane
        self._default_model = default_model
        # Routes by path, of one generation of loaded models.
        self._declared: BoundedCache[str, list[ModelRoute]] = BoundedCache()
        self._generation = -1

    def match(self, request: Request) -> ModelRoute | None:
        """Return the model and route that answer a request; None if no model declares its path.

        Raises:
            MethodNotAllowed: models declare the path with other methods only.
            MLServerError: several models declare it and nothing selects one.
        """
        declared = self._get_declared(request.path)
        if not declared:
            return None
        routes = _filter_by_method(request, declared)
        if not routes:
            methods = sorted({entry.route.method for entry in declared})
            raise MethodNotAllowed(request.method, request.path, methods)
        header = request.header(MODEL_HEADER)
        if header is not None and not _MODEL_PATH.fullmatch(request.path):
            _check_model_header(header.decode("latin-1"), request, routes)
        if len(routes) == 1:
            return routes[0]
        return self._select(request, routes)

    def not_found_error(self, request: Request) -> MLServerError:
        """Return the error for a path that no loaded model declares: 404, or 503 while models are
        loading.
        """
        model_path = _parse_model_path(request.path)
        if model_path is not None:
            error = self.get_model_error(model_path.name, model_path.version)
            if error is not None:
                return error
        elif self._data_plane.loading:
            text = "while models are loading, which may declare it"
            return Unavailable(f"No such path {text}: {request.method} {request.path}")
        hint = get_hint(request.path)
        return MLServerError(f"No such path: {request.method} {request.path}; {hint}", 404)

    def get_model_error(self, name: str, version: str | None) -> MLServerError | None:
        """Return why a model is not usable: unknown or not ready. None = it is usable."""
        try:
            self._data_plane.check_usable(name, version)
        except MLServerError as error:
            return error
        return None

    def is_declared(self, path: str) -> bool:
        """Return whether a model declares a path, with any method."""
        return bool(self._get_declared(path))

    def is_public(self, request: Request) -> bool:
        """Return whether every route that may answer a request is public.

        Reveals nothing else to clients without a credential.
        """
        routes = _filter_by_method(request, self._get_declared(request.path))
        if not routes and _parse_model_path(request.path) is None:
            # While models are loading, a probe of a public path receives 503, not 401.
            return self._data_plane.loading
        name = self._get_selected_name(request)
        selected = [entry for entry in routes if entry.name == name] or routes
        return bool(selected) and all(entry.route.public for entry in selected)

    def _get_declared(self, path: str) -> list[ModelRoute]:
        """Return the routes whose template matches a path, with any method."""
        if self._generation != self._data_plane.generation:
            self._declared.clear()
            self._generation = self._data_plane.generation
        routes = self._declared.get(path)
        if routes is None:
            routes = self._find_declared(path)
            if routes:
                self._declared.store(path, routes)
        return routes

    def _find_declared(self, path: str) -> list[ModelRoute]:
        model_path = _parse_model_path(path)
        if model_path is None:
            candidates, path = self._data_plane.routes(), decode_segment(path)
        else:
            candidates = self._data_plane.get_routes(model_path.name, model_path.version)
            path = model_path.path
        return [entry for entry in candidates if matches(entry.route.path, path)]

    def _select(
        self, request: Request, routes: list[ModelRoute], by_body: bool = True
    ) -> ModelRoute:
        """Return the route of the model that the request or the settings select.

        Args:
            by_body: Whether a body that is not read yet may select.
        """
        names = [entry.name for entry in routes]
        selected = self._get_selected_name(request)
        if selected in names:
            return routes[names.index(selected)]
        if all(
            entry.route.static is not None or (by_body and _is_named_by_body(entry))
            for entry in routes
        ):
            return routes[0]  # static replies are equal; `_select_by_body` follows
        listed = ", ".join(f"'{name}'" for name in names)
        raise MLServerError(
            f"Several models answer {request.path}: {listed}. Use /v2/models/NAME{request.path}, "
            f"the header X-MLServer-Model or the setting 'default_model'"
        )

    def _get_selected_name(self, request: Request) -> str | None:
        header = request.header(MODEL_HEADER)
        return header.decode("latin-1") if header is not None else self._default_model

    async def respond(self, model_route: ModelRoute, request: Request) -> Reply:
        """Return the reply of a route from `match`."""
        route = model_route.route
        if "joined" in route.config:
            return await self._join_documents(model_route, request)
        if route.static is not None:
            self._data_plane.check_ready(model_route.name, model_route.version)
            return Reply(200, route.static.encode(), route.content_type)
        if not route.wire:
            return await self._forward(model_route, request)
        try:
            selected = self._select_by_body(model_route, request)
        except MLServerError as error:
            reply = Reply(*wire.get_wire(model_route).write_error(error, route.config))
            reply.error = error
            return reply
        return await wire.respond(self._data_plane, selected, request)

    async def _forward(self, model_route: ModelRoute, request: Request) -> Reply:
        """Send the HTTP request to the model's handler in its worker."""
        model_path = _parse_model_path(request.path)
        path = decode_segment(request.path) if model_path is None else model_path.path
        forwarded = HTTPRequest(
            model_route.route.method, path, request.query, request.raw_headers, request.body
        )
        response = await self._data_plane.route(model_route.name, model_route.version, forwarded)
        pairs = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
        ]
        content_type, headers = split_content_type(model_headers(pairs))
        return Reply(response.status, response.body, content_type or "", headers)

    def _select_by_body(self, model_route: ModelRoute, request: Request) -> ModelRoute:
        """Return the route of the model that the body names, unless the path or the header names
        one.

        Raises:
            ModelNotFound: the body names a model that does not declare this path.
            ModelNotReady: the body names a model that is known and not loaded.
        """
        if not _is_named_by_body(model_route) or _parse_model_path(request.path) is not None:
            return model_route
        routes = _filter_by_method(request, self._get_declared(request.path))
        names = [entry.name for entry in routes]
        header = request.header(MODEL_HEADER)
        if header is not None and header.decode("latin-1") in names:
            return model_route
        module = wire.get_wire(model_route)
        name = module.named_model(request.body, model_route.route.config)
        if name in names:
            return routes[names.index(name)]
        if name is not None:
            with suppress(ModelNotFound):
                self._data_plane.check_ready(name)
            listed = ", ".join(f"'{other}'" for other in names)
            scope = f" among the models that answer {request.path}: {listed}"
            raise ModelNotFound(name, scope=scope)
        if len(routes) == 1 or self._get_selected_name(request) in names:
            return model_route
        return self._select(request, routes, by_body=False)

    async def _join_documents(self, model_route: ModelRoute, request: Request) -> Reply:
        """Return the static documents of all ready models, joined at the routes' list."""
        declared = [model_route]
        if _parse_model_path(request.path) is None:
            routes = self._data_plane.routes()
            declared = [entry for entry in routes if entry.route.path == request.path]
        key = model_route.route.config["joined"]
        items = []
        for entry in declared:
            if await self._data_plane.model_ready(entry.name, entry.version):
                items += json.loads(entry.route.static or "{}").get(key, [])
        document = {**json.loads(model_route.route.static or "{}"), key: items}
        return Reply(200, json.dumps(document).encode())


def _check_model_header(name: str, request: Request, routes: list[ModelRoute]) -> None:
    """Raise 404 if the model in the header does not declare the path."""
    names = [entry.name for entry in routes]
    if name not in names:
        listed = ", ".join(f"'{other}'" for other in names)
        shown = brief(name)[1:-1]
        raise MLServerError(
            f"Model '{shown}' (header X-MLServer-Model) does not answer {request.path}; "
            f"these do: {listed}",
            404,
        )


def _filter_by_method(request: Request, routes: list[ModelRoute]) -> list[ModelRoute]:
    """Return the routes for the method of a request; HEAD falls back to GET."""
    matching = [entry for entry in routes if entry.route.method == request.method]
    if not matching and request.method == "HEAD":
        matching = [entry for entry in routes if entry.route.method == "GET"]
    return matching


def _is_named_by_body(model_route: ModelRoute) -> bool:
    """Return whether bodies of this route may name their model."""
    return bool(model_route.route.wire) and hasattr(wire.get_wire(model_route), "named_model")


class _ModelPath(NamedTuple):
    """A path under `/v2/models/{name}`, decoded."""

    name: str
    version: str | None
    path: str


def _parse_model_path(path: str) -> _ModelPath | None:
    match = _MODEL_PATH.fullmatch(path)
    if match is None:
        return None
    version = match["version"]
    return _ModelPath(
        decode_segment(match["name"]),
        version and decode_segment(version),
        decode_segment(match["path"]),
    )


def matches(template: str, path: str) -> bool:
    """Return whether a path matches a template in FastAPI's form.

    `{name}` is one segment, `{name:path}` any number of them.
    """
    if template == path:
        return True
    if "{" not in template:
        return False
    parts = re.split(r"(\{[^}]*\})", template)
    return re.fullmatch("".join(map(_to_pattern, parts)), path) is not None


def _to_pattern(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return ".+" if part.endswith(":path}") else "[^/]+"
