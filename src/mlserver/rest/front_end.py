"""The REST front end and the metrics page as parts of the server: an address, a start and a stop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import RepositoryControl
from ..metrics.endpoint import MetricsPage, MetricsServer
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import METRICS, Authorizer, Caller
from ..settings import Settings
from ..wire.json import write_error
from .app import RESTApp
from .docs import Docs
from .endpoints import Endpoints
from .http.body import Receive
from .http.server import HTTPListener, allow_descriptors, bind, join_address
from .messages import Headers
from .routing import Router
from .runtime_routes.matching import ModelRoutes


class RESTServer:
    """The REST front end: its port, and the one for administration if that is apart. Binds at once; answers from `start` on.

    Args:
        access: Who may do what; None = as the settings say.
        metrics_page: Gives the page at `metrics_endpoint`; None = there is none on this port.

    Raises:
        MLServerError: a port cannot be bound, or the certificates cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: RepositoryControl,
        metrics: ServerMetrics,
        access: Authorizer | None = None,
        metrics_page: MetricsPage | None = None,
    ) -> None:
        allow_descriptors(settings.max_connections)
        router = Router()
        events = CloudEvents(settings.server_name, get_namespace())
        Endpoints(settings, data_plane, model_repository_handlers, events).register(router)
        Docs(settings, data_plane).register(router)
        routes = ModelRoutes(data_plane, settings.default_model)
        app = RESTApp(
            settings, router, routes, metrics, access or Authorizer(settings), metrics_page
        )
        shared = settings.http_workers > 1
        root, listener = (
            settings.root_path,
            bind(settings.host, settings.http_port, "http_port", shared),
        )
        self.address = f"REST on {_url(settings, settings.host, listener)}"
        if metrics_page is not None and not settings.has_metrics_port:
            self.address += f", metrics at {settings.metrics_endpoint}"
        self._servers = [HTTPListener(listener, app, settings, root)]
        if settings.admin_port is not None:
            app = RESTApp(
                settings, router, routes, metrics, Authorizer(settings, is_admin_address=True)
            )
            listener = bind(settings.admin_host, settings.admin_port, "admin_port", shared)
            self.address += f", administration on {_url(settings, settings.admin_host, listener)}"
            self._servers.append(HTTPListener(listener, app, settings, root))

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    def end_connections(self) -> None:
        """Say with each answer from now on that its connection ends."""
        for server in self._servers:
            server.end_connections()

    async def drain(self) -> None:
        """Take no more connections; return when all requests are answered and all connections closed."""
        await asyncio.gather(*(server.drain() for server in self._servers))

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


def _url(settings: Settings, host: str, listener: socket.socket) -> str:
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://{join_address(host, listener.getsockname()[1])}"


class MetricsFrontEnd:
    """The metrics page, on its own port.

    Args:
        page: Answers the requests.
        access: Who may see it.
    """

    def __init__(self, settings: Settings, page: MetricsServer, access: Authorizer) -> None:
        listener = bind(settings.host, settings.metrics_port or 0, "metrics_port")
        path = "/" + (settings.metrics_endpoint or "").strip("/")
        self.address = f"metrics on {_url(settings, settings.host, listener)}{path}"
        self._server = HTTPListener(
            listener, _Guarded(page, access) if access.requires_credentials else page, settings
        )

    async def start(self) -> None:
        await self._server.start()

    def end_connections(self) -> None:
        """Say with each answer from now on that its connection ends."""
        self._server.end_connections()

    async def drain(self) -> None:
        """Nothing: the page is there until the end."""

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


class _Guarded:
    """The metrics page for callers with the scope for it."""

    def __init__(self, page: MetricsServer, access: Authorizer) -> None:
        self._page = page
        self._access = access

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        try:
            client = scope["client"]
            await self._access.check(
                METRICS, Caller(client[0] if client else "", Headers(scope["headers"]))
            )
        except MLServerError as error:
            body = write_error(error)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
            ]
            if error.status_code == 401:
                headers.append((b"www-authenticate", b"Bearer"))
            await send(
                {"type": "http.response.start", "status": error.status_code, "headers": headers}
            )
            await send({"type": "http.response.body", "body": body})
        else:
            await self._page(scope, receive, send)
