"""The metrics endpoint: an ASGI application with the metrics of the server and its models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from . import declared, shared
from .merging import merge
from .server_metrics import ServerMetrics
from .state_instruments import StateInstruments

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ..settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# `accept` header -> content type and body of the metrics page.
MetricsPage = Callable[[str], Awaitable[tuple[str, bytes]]]


def configure_metrics(settings: Settings) -> ServerMetrics | None:
    """Return the server's own metrics; None if `metrics_endpoint` is off."""
    if not settings.metrics_endpoint:
        return None
    return ServerMetrics(settings.metrics_rest_server_prefix)


class MetricsServer:
    """Serves GET and HEAD on `metrics_endpoint`, as text or, if accepted, as OpenMetrics.

    Args:
        settings: The path of the endpoint.
        server_metrics: The server's own metrics; None = metrics of models and of the process only.
        collect_all: Returns the sum of all processes' metrics; None = this is the only process.
        read_state: Returns the state of models and processes.
    """

    def __init__(
        self,
        settings: Settings,
        server_metrics: ServerMetrics | None = None,
        collect_all: Callable[[], Awaitable[ServerMetrics]] | None = None,
        read_state: Callable[[], StateInstruments] = StateInstruments,
    ) -> None:
        self._path = "/" + (settings.metrics_endpoint or "/metrics").strip("/")
        self._server_metrics = server_metrics
        self._collect_all = collect_all
        self._read_state = read_state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _handle_lifespan(receive, send)
        elif scope["type"] == "http":
            status, kind, body = await self._respond(scope)
            headers = [
                (b"content-type", kind.encode()),
                (b"content-length", str(len(body)).encode()),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            sent_body = b"" if scope["method"] == "HEAD" else body
            await send({"type": "http.response.body", "body": sent_body})

    async def _respond(self, scope: Scope) -> tuple[int, str, bytes]:
        if (scope["path"].rstrip("/") or "/") != self._path:
            text = f"No such path: this port has only the metrics, at {self._path}; see 'http_port'"
            return 404, "application/json", json.dumps({"error": text}).encode()
        if scope["method"] not in ("GET", "HEAD"):
            text = f"Method {scope['method']} is not allowed on {self._path}; allowed: GET, HEAD"
            return 405, "application/json", json.dumps({"error": text}).encode()
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        return 200, *await self.page(accept)

    async def page(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body of the page, with the sums of all processes."""
        state = self._read_state()
        server_metrics = (
            self._server_metrics if self._collect_all is None else await self._collect_all()
        )
        # Rendering thousands of series would block the requests on this event loop.
        return await asyncio.to_thread(_render, server_metrics, state, accept)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return content type and body of the page, of this process only."""
        return _render(self._server_metrics, self._read_state(), accept)


def _render(
    server_metrics: ServerMetrics | None, state: StateInstruments, accept: str
) -> tuple[str, bytes]:
    from prometheus_client import exposition
    from prometheus_client.registry import Collector

    class Page(Collector):
        def collect(self) -> Iterator[Metric]:
            return _families(server_metrics, state)

    if "application/openmetrics-text" in accept:
        encode, kind = exposition.choose_encoder(accept)
        return kind, encode(Page())
    return "text/plain; version=1.0.0; charset=utf-8", exposition.generate_latest(Page())


def _families(server_metrics: ServerMetrics | None, state: StateInstruments) -> Iterator[Metric]:
    """Yield all families with distinct names: Prometheus rejects a page with a repeated name."""
    from prometheus_client import REGISTRY as PROCESS

    from .registry import REGISTRY

    counted = server_metrics.collect() if server_metrics else ()
    names: set[str] = set()
    for family in chain(counted, state.collect()):
        names.add(family.name)
        yield family
    registered = (
        family for source in (REGISTRY, PROCESS, *declared.parts()) for family in source.collect()
    )
    yield from merge(chain(registered, shared.collect()), names)


async def _handle_lifespan(receive: Receive, send: Send) -> None:
    """Acknowledge the ASGI lifespan events `startup` and `shutdown`."""
    for _ in range(2):
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
