"""REST front end and metrics front end: addresses, start, drain and stop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
from ..handlers.model_repository import ReadMonitoring, RepositoryControl
from ..metrics.endpoint import MetricsPage, MetricsServer
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import METRICS, Authorizer, Caller
from ..settings import Settings
from ..settings.addresses import get_client_host
from ..sockets import bind, join_address, raise_descriptor_limit
from ..wire.json import write_error
from .app import CONSOLE_PATHS, RESTApp
from .docs import Docs
from .endpoints import Endpoints
from .http.body import Receive
from .http.server import HTTPListener
from .messages import Headers, Reply, Request
from .routing import Router
from .runtime_routes.matching import ModelRoutes

if TYPE_CHECKING:
    from .console.endpoints import ConsoleEndpoints


class RESTServer:
    """REST front end on `http_port`, and on `admin_port` if it is set. Binds on creation.

    Args:
        access: Checks credentials and scopes; None = as the settings say.
        metrics_page: Returns the page at `metrics_endpoint`; None = this port has no such page.
        read_monitoring: Returns a monitoring document; None = no console.

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
        read_monitoring: ReadMonitoring | None = None,
    ) -> None:
        raise_descriptor_limit(2 * settings.max_connections)  # HTTP and gRPC
        router = Router()
        events = CloudEvents(settings.server_name, get_namespace())
        Endpoints(settings, data_plane, model_repository_handlers, events).register(router)
        Docs(settings, data_plane).register(router)
        access = access or Authorizer(settings)
        if settings.has_console and read_monitoring is not None:
            _add_console_routes(router, read_monitoring, access)
        routes = ModelRoutes(data_plane, settings.default_model)
        app = RESTApp(settings, router, routes, metrics, access, metrics_page)
        is_shared = settings.http_workers > 1
        root = settings.root_path
        listener = bind(settings.host, settings.http_port, "http_port", is_shared)
        self.address = f"REST on {_url(settings, settings.host, listener)}"
        self.endpoints = {"REST": _client_url(settings, settings.host, listener) + root}
        if metrics_page is not None and not settings.has_metrics_port:
            self.address += f", metrics at {settings.metrics_endpoint}"
        self._apps = [app]
        self._servers = [HTTPListener(listener, app, settings, root)]
        if settings.admin_port is not None:
            app = RESTApp(
                settings, router, routes, metrics, Authorizer(settings, is_admin_address=True)
            )
            listener = bind(settings.admin_host, settings.admin_port, "admin_port", is_shared)
            self.address += f", administration on {_url(settings, settings.admin_host, listener)}"
            self.endpoints["admin"] = _client_url(settings, settings.admin_host, listener)
            self._apps.append(app)
            self._servers.append(HTTPListener(listener, app, settings, root))

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    def end_connections(self) -> None:
        """Send `connection: close` with each response from now on."""
        for server in self._servers:
            server.end_connections()

    async def drain(self) -> None:
        """Stop accepting; return when all requests are answered and all connections closed."""
        await asyncio.gather(*(server.drain() for server in self._servers))

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        for app in self._apps:
            app.flush_log()


def _add_console_routes(
    router: Router, read_monitoring: ReadMonitoring, access: Authorizer
) -> None:
    """Add the routes of the console's data; their module is imported on the first request."""
    loaded: list[ConsoleEndpoints] = []

    async def respond(request: Request) -> Reply:
        if not loaded:
            from .console.endpoints import ConsoleEndpoints

            loaded.append(ConsoleEndpoints(read_monitoring, access))
        return await loaded[0].respond(request)

    for method, path in CONSOLE_PATHS:
        router.add(method, path, respond)


def _url(settings: Settings, host: str, listener: socket.socket) -> str:
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://{join_address(host, listener.getsockname()[1])}"


def _client_url(settings: Settings, host: str, listener: socket.socket) -> str:
    """Return the URL for clients on this machine."""
    return _url(settings, get_client_host(host), listener)


class MetricsFrontEnd:
    """Metrics page on `metrics_port`.

    Args:
        page: ASGI application of the page.
        access: Checks credentials and the scope `metrics`.
    """

    def __init__(self, settings: Settings, page: MetricsServer, access: Authorizer) -> None:
        listener = bind(settings.host, settings.metrics_port or 0, "metrics_port")
        path = "/" + (settings.metrics_endpoint or "").strip("/")
        self.address = f"metrics on {_url(settings, settings.host, listener)}{path}"
        self.endpoints = {"metrics": _client_url(settings, settings.host, listener) + path}
        app = _AuthorizedPage(page, access) if access.requires_credentials else page
        self._server = HTTPListener(listener, app, settings)

    async def start(self) -> None:
        await self._server.start()

    def end_connections(self) -> None:
        """Send `connection: close` with each response from now on."""
        self._server.end_connections()

    async def drain(self) -> None:
        """Do nothing: the page is served until `stop`."""

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


class _AuthorizedPage:
    """Metrics page for callers with the scope `metrics`."""

    def __init__(self, page: MetricsServer, access: Authorizer) -> None:
        self._page = page
        self._access = access

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        try:
            host = scope["client"][0] if scope["client"] else ""
            await self._access.check(METRICS, Caller(host, Headers(scope["headers"])))
        except MLServerError as error:
            await _send_error(error, send)
        else:
            await self._page(scope, receive, send)


async def _send_error(error: MLServerError, send: Any) -> None:
    reply = Reply(error.status_code, write_error(error))
    if error.status_code == 401:
        reply.headers.append((b"www-authenticate", b"Bearer"))
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()}
    )
    await send({"type": "http.response.body", "body": reply.body})
