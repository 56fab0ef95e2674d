"""Documentation routes: OpenAPI documents, and a self-contained page that shows them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from ..handlers import DataPlane
from ..settings import Settings
from ..wire.json import write_document
from . import openapi
from .messages import RawHeaders, Reply, Request
from .routing import Router

# The page's styles and script are inline, and it connects to this server only.
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
_PAGE_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
]
_MODEL_PATHS = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}")


class Docs:
    """Documents and pages of the server and of each model."""

    def __init__(self, settings: Settings, data_plane: DataPlane) -> None:
        self._settings = settings
        self._data_plane = data_plane

    def register(self, router: Router) -> None:
        """Add the routes to a router."""
        router.add("GET", "/v2/docs", self.page)
        router.add("GET", "/v2/docs/dataplane.json", self.server_document)
        for model in _MODEL_PATHS:
            router.add("GET", f"{model}/docs", self.model_page)
            router.add("GET", f"{model}/docs/dataplane.json", self.model_document)

    async def page(self, request: Request) -> Reply:
        return Reply(200, _page(), "text/html; charset=utf-8", list(_PAGE_HEADERS))

    async def model_page(self, request: Request) -> Reply:
        # A page needs no credential, which a browser cannot send with an address. With
        # authentication it must not reveal which models exist.
        if self._settings.auth is None:
            await self._data_plane.model_ready(
                request.segments["model_name"], request.segments.get("model_version")
            )
        return await self.page(request)

    async def server_document(self, request: Request) -> Reply:
        settings = self._settings
        document = openapi.server_document(
            settings.root_path, settings.server_version, self._data_plane.model_names()
        )
        return Reply(body=write_document(document))

    async def model_document(self, request: Request) -> Reply:
        name, version = request.segments["model_name"], request.segments.get("model_version")
        metadata = await self._data_plane.model_metadata(name, version)
        routes = [entry.route for entry in self._data_plane.get_routes(name, version)]
        document = openapi.model_document(self._settings.root_path, metadata, version, routes)
        return Reply(body=write_document(document))


@cache
def _page() -> bytes:
    return files(__package__).joinpath("docs.html").read_bytes()
