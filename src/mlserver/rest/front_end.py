"""The REST front end and the metrics page as parts of the server: an address, a start and a stop."""

from __future__ import annotations

from ..handlers import DataPlane, ModelRepositoryHandlers
from ..metrics.road import RoadMetrics
from ..metrics.server import MetricsServer
from ..settings import Settings
from ..wire.headers import CloudEvents, get_namespace
from .app import RESTApp
from .endpoints import Endpoints
from .model_routes import ModelRoutes
from .routing import Router
from .server import HTTPServer, bind


class RESTServer:
    """The REST front end. Binds its port at once; answers from `start` on.

    Raises:
        MLServerError: the port cannot be bound.
    """

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: ModelRepositoryHandlers,
        metrics: RoadMetrics,
    ) -> None:
        router = Router()
        events = CloudEvents(settings.server_name, get_namespace())
        Endpoints(settings, data_plane, model_repository_handlers, events).register(router)
        app = RESTApp(settings, router, ModelRoutes(data_plane, settings.default_model), metrics)
        self.address = f"REST on http://{settings.host}:{settings.http_port}"
        self._server = HTTPServer(bind(settings.host, settings.http_port, "http_port"), app, settings)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


class MetricsFrontEnd:
    """The metrics page, on its own port."""

    def __init__(self, settings: Settings, metrics: RoadMetrics) -> None:
        self.address = f"metrics on http://{settings.host}:{settings.metrics_port}{settings.metrics_endpoint}"
        listener = bind(settings.host, settings.metrics_port, "metrics_port")
        self._server = HTTPServer(listener, MetricsServer(settings, metrics), settings)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)
