"""Documentation routes: OpenAPI documents, and the way to the console's page that shows them."""

from __future__ import annotations

from urllib.parse import quote

from ..handlers import DataPlane
from ..settings import Settings
from ..wire.json import write_document
from . import openapi
from .messages import Reply, Request
from .routing import Router

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
        return self._redirect(request, "api")

    async def model_page(self, request: Request) -> Reply:
        name, version = request.segments["model_name"], request.segments.get("model_version")
        # A page needs no credential, which a browser cannot send with an address. With
        # authentication it must not reveal which models exist.
        if self._settings.auth is None:
            await self._data_plane.model_ready(name, version)
        fragment = f"api/{quote(name, safe='')}"
        return self._redirect(
            request, f"{fragment}/{quote(version, safe='')}" if version else fragment
        )

    def _redirect(self, request: Request, fragment: str) -> Reply:
        """Return a redirection to a page of the console, or to the document if there is none.

        The address is relative, so that it holds behind any proxy.
        """
        depth = request.template.count("/") - 1
        location = f"{'../' * depth}console/#/{fragment}"
        if not self._settings.has_console:
            location = f"{request.template.rpartition('/')[2]}/dataplane.json"
        if request.target.endswith("/"):
            location = f"../{location}"
        headers = [(b"location", location.encode("latin-1")), (b"cache-control", b"no-cache")]
        return Reply(307, b"", "", headers)

    async def server_document(self, request: Request) -> Reply:
        settings = self._settings
        document = openapi.server_document(
            settings.root_path,
            settings.server_version,
            self._data_plane.model_names(),
            settings.has_console,
        )
        return Reply(body=write_document(document))

    async def model_document(self, request: Request) -> Reply:
        name, version = request.segments["model_name"], request.segments.get("model_version")
        metadata = await self._data_plane.model_metadata(name, version)
        routes = [entry.route for entry in self._data_plane.get_routes(name, version)]
        document = openapi.model_document(self._settings.root_path, metadata, version, routes)
        return Reply(body=write_document(document))
