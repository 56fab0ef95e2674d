"""REST paths that models declare themselves, such as MLflow's `/invocations`.

A path that one model declares is answered by that model. If several declare it, the header `X-MLServer-Model` chooses,
else the body where its format names a model, else the setting `default_model`; else the request is refused with their
names. A body that names a model which does not answer the path is refused, also if only one model declares it. Under `/v2/models/{name}/...` each model's own paths are always reachable.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from ...errors import MLServerError, ModelNotFound, Unavailable
from ...handlers import DataPlane
from ...handlers.dataplane import ModelRoute
from ...parallel.executor import HTTPRequest
from ...tensor import brief
from ..bounded_cache import BoundedCache
from ..hints import hint_of
from ..messages import Reply, Request, model_headers
from ..routing import MethodNotAllowed, decode_segment
from . import wire

MODEL_HEADER = b"x-mlserver-model"
_UNDER_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<path>/.+)"
)


class ModelRoutes:
    """Answers the paths of models."""

    def __init__(self, data_plane: DataPlane, default_model: str | None) -> None:
        self._data_plane = data_plane
        self._default_model = default_model
        # As long as the models stay the same.
        self._known: BoundedCache[str, list[ModelRoute]] = BoundedCache()
        self._known_of = -1

    def match(self, request: Request) -> ModelRoute | None:
        """The model and route that answer a request; None if no model declares such a path.

        Raises:
            MethodNotAllowed: models declare the path with other methods only.
            MLServerError: several models declare it and nothing says which one is meant.
        """
        return self._with_method(request, self._declared(request.path))

    def no_route(self, request: Request) -> MLServerError:
        """Return what is said of a path that no model declares, or not yet."""
        under = _under_model(request.path)
        if under is not None:
            fault = self.fault_of_model(under.name, under.version)
            if fault is not None:
                return fault
        elif self._data_plane.loading:
            text = "while models are loading, which may declare it"
            return Unavailable(f"No such path {text}: {request.method} {request.path}")
        hint = hint_of(request.path)
        return MLServerError(f"No such path: {request.method} {request.path}; {hint}", 404)

    def fault_of_model(self, name: str, version: str | None) -> MLServerError | None:
        """Return why a model cannot be asked: it is not known or not ready. None = it can."""
        try:
            self._data_plane.check_usable(name, version)
        except MLServerError as error:
            return error
        return None

    def is_declared(self, path: str) -> bool:
        """Whether a model declares a path, with any method."""
        return bool(self._declared(path))

    def is_public(self, request: Request) -> bool:
        """Whether every route that may answer a request is public. Tells strangers nothing else."""
        found = self._answering(request, self._declared(request.path))
        if not found and _under_model(request.path) is None:
            return self._data_plane.loading  # a probe of a public path is to hear 503, not 401
        selected = [own for own in found if own.name == self._chosen(request)] or found
        return bool(selected) and all(own.route.public for own in selected)

    def _declared(self, path: str) -> list[ModelRoute]:
        """The routes that answer a path."""
        if self._known_of != self._data_plane.generation:
            self._known.clear()
            self._known_of = self._data_plane.generation
        found = self._known.get(path)
        if found is None:
            found = self._find(path)
            if found:
                self._known.keep(path, found)
        return found

    def _find(self, path: str) -> list[ModelRoute]:
        under = _under_model(path)
        if under is not None:
            of_model = self._data_plane.get_routes(under.name, under.version)
            return [own for own in of_model if matches(own.route.path, under.path)]
        return [
            own
            for own in self._data_plane.routes()
            if matches(own.route.path, decode_segment(path))
        ]

    def _with_method(self, request: Request, declared: list[ModelRoute]) -> ModelRoute | None:
        if not declared:
            return None
        found = self._answering(request, declared)
        if not found:
            raise MethodNotAllowed(
                request.method, request.path, sorted({own.route.method for own in declared})
            )
        header = request.header(MODEL_HEADER)
        if header is not None and not _UNDER_MODEL.fullmatch(request.path):
            self._check_header(header.decode("latin-1"), request, found)
        if len(found) == 1:
            return found[0]
        return self._choose(request, found)

    @staticmethod
    def _check_header(name: str, request: Request, found: list[ModelRoute]) -> None:
        """Refuse a request for a model that does not answer its path."""
        names = [own.name for own in found]
        if name not in names:
            listed = ", ".join(f"'{own}'" for own in names)
            text = f"Model '{brief(name)[1:-1]}' (header X-MLServer-Model) does not answer {request.path}"
            raise MLServerError(f"{text}; these do: {listed}", 404)

    @staticmethod
    def _answering(request: Request, declared: list[ModelRoute]) -> list[ModelRoute]:
        """The routes for the method of a request; HEAD is GET whose body is not sent."""
        own = [one for one in declared if one.route.method == request.method]
        return own or [
            one for one in declared if (request.method, one.route.method) == ("HEAD", "GET")
        ]

    def _choose(
        self, request: Request, found: list[ModelRoute], by_body: bool = True
    ) -> ModelRoute:
        names = [own.name for own in found]
        wanted = self._chosen(request)
        if wanted in names:
            return found[names.index(wanted)]
        if all(own.route.static is not None or (by_body and _says_model(own)) for own in found):
            return found[0]  # the body decides between them, once it is read
        listed = ", ".join(f"'{name}'" for name in names)
        raise MLServerError(
            f"Several models answer {request.path}: {listed}. Use /v2/models/NAME{request.path}, "
            f"the header X-MLServer-Model or the setting 'default_model'"
        )

    def _chosen(self, request: Request) -> str | None:
        header = request.header(MODEL_HEADER)
        return header.decode("latin-1") if header is not None else self._default_model

    async def answer(self, found: ModelRoute, request: Request) -> Reply:
        """Answer a request that `match` found a route for."""
        route = found.route
        if "joined" in route.config:
            return await self._joined(found, request)
        if route.static is not None:
            self._data_plane.check_ready(found.name, found.version)
            return Reply(200, route.static.encode(), route.content_type)
        if route.wire:
            try:
                asked = self._asked(found, request)
            except MLServerError as error:
                return Reply(*wire.wire_of(found).write_error(error, route.config))
            return await wire.answer(self._data_plane, asked, request)
        path = _own_path(request.path)
        forwarded = HTTPRequest(
            route.method, path, request.query, request.raw_headers, request.body
        )
        answer = await self._data_plane.route(found.name, found.version, forwarded)
        given = model_headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers
        )
        content_type = dict(given).get(b"content-type", b"").decode("latin-1")
        kept = [pair for pair in given if pair[0] != b"content-type"]
        return Reply(answer.status, answer.body, content_type, kept)

    def _asked(self, found: ModelRoute, request: Request) -> ModelRoute:
        """The route of the model that the body names, where neither path nor header does.

        Raises:
            ModelNotFound: it names a model that does not answer this path.
            ModelNotReady: it names a model that is known and not loaded.
        """
        if not _says_model(found) or _under_model(request.path) is not None:
            return found
        rivals = self._answering(request, self._declared(request.path))
        names = [own.name for own in rivals]
        header = request.header(MODEL_HEADER)
        if header is not None and header.decode("latin-1") in names:
            return found
        wanted = wire.wire_of(found).named_model(request.body, found.route.config)
        if wanted in names:
            return rivals[names.index(wanted)]
        if wanted is not None:
            self._data_plane.check_ready(wanted)
            raise ModelNotFound(wanted)
        if len(rivals) == 1 or self._chosen(request) in names:
            return found
        return self._choose(request, rivals, by_body=False)

    async def _joined(self, found: ModelRoute, request: Request) -> Reply:
        """The fixed documents of all models that are ready, joined at the key that their routes name."""
        declared = [own for own in self._data_plane.routes() if own.route.path == request.path]
        if _under_model(request.path) is not None:
            declared = [found]
        key = found.route.config["joined"]
        ready = [
            own for own in declared if await self._data_plane.model_ready(own.name, own.version)
        ]
        entries = [
            entry for own in ready for entry in json.loads(own.route.static or "{}").get(key, [])
        ]
        return Reply(
            200, json.dumps({**json.loads(found.route.static or "{}"), key: entries}).encode()
        )


def _says_model(found: ModelRoute) -> bool:
    """Whether bodies of this route may name their model."""
    return bool(found.route.wire) and hasattr(wire.wire_of(found), "named_model")


class _UnderModel(NamedTuple):
    """A path below that of one model, decoded."""

    name: str
    version: str | None
    path: str


def _under_model(path: str) -> _UnderModel | None:
    found = _UNDER_MODEL.fullmatch(path)
    if found is None:
        return None
    version = found["version"]
    return _UnderModel(
        decode_segment(found["name"]),
        version and decode_segment(version),
        decode_segment(found["path"]),
    )


def _own_path(path: str) -> str:
    under = _under_model(path)
    return under.path if under is not None else decode_segment(path)


def matches(template: str, path: str) -> bool:
    """Whether a path fits a template in FastAPI's form: `{name}` is one segment, `{name:path}` any number."""
    if template == path:
        return True
    if "{" not in template:
        return False
    parts = re.split(r"(\{[^}]*\})", template)
    pattern = "".join(
        re.escape(part)
        if not part.startswith("{")
        else (".+" if part.endswith(":path}") else "[^/]+")
        for part in parts
    )
    return re.fullmatch(pattern, path) is not None
