"""Documentation routes: OpenAPI documents, and a redirect to the console's page that shows them."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import quote

from ..errors import MLServerError
from ..handlers import DataPlane
from ..settings import Settings
from ..wire.json import read_json, write_document
from . import openapi
from .messages import Reply, Request
from .routing import Router

_MODEL_PATHS = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}")


SAMPLE_FILE = "sample-request.json"  # as `mlserver check` sends
MAX_SAMPLE_BYTES = 1 << 20


def _read_sample(folder: str | None) -> dict[str, Any] | None:
    """Return the V2 request beside a model's settings; None if there is no usable one."""
    if folder is None:
        return None
    try:
        with open(os.path.join(folder, SAMPLE_FILE), "rb") as file:
            body = file.read(MAX_SAMPLE_BYTES + 1)
        sample = read_json(body) if len(body) <= MAX_SAMPLE_BYTES else None
    except (OSError, MLServerError):
        return None
    is_request = isinstance(sample, dict) and isinstance(sample.get("inputs"), list)
    return sample if is_request else None


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
        sample = await asyncio.to_thread(_read_sample, self._data_plane.get_folder(name, version))
        document = openapi.model_document(
            self._settings.root_path, metadata, version, routes, sample
        )
        return Reply(body=write_document(document))
