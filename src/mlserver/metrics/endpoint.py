"""The page with all metrics, as a bare ASGI application of its own, for its own port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from . import declared, shared
from .merging import merge
from .server_metrics import ServerMetrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ..settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# From the `accept` header of a request to the page's content type and text.
MetricsPage = Callable[[str], Awaitable[tuple[str, bytes]]]


def configure_metrics(settings: Settings) -> ServerMetrics | None:
    """The server's own metrics, as the settings want them; None if `metrics_endpoint` is off."""
    return ServerMetrics(settings.metrics_rest_server_prefix) if settings.metrics_endpoint else None


class MetricsServer:
    """Answers GET and HEAD on `metrics_endpoint`, in the text format or, if asked for, as OpenMetrics.

    Args:
        settings: For the endpoint's path.
        road: The server's own metrics; None = only those of models and of the process.
        gather: Asks other processes for theirs, and gives the sum; None = there are no others.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: ServerMetrics | None = None,
        gather: Callable[[], Awaitable[ServerMetrics]] | None = None,
    ) -> None:
        self._path = "/" + (settings.metrics_endpoint or "/metrics").strip("/")
        self._pipeline = pipeline
        self._gather = gather
        self._tasks = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            status, kind, body = await self._answer(scope)
            headers = [
                (b"content-type", kind.encode()),
                (b"content-length", str(len(body)).encode()),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send(
                {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
            )

    async def _answer(self, scope: Scope) -> tuple[int, str, bytes]:
        if (scope["path"].rstrip("/") or "/") != self._path:
            return 404, "application/json", b'{"error":"Not Found"}'
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "application/json", b'{"error":"Method Not Allowed"}'
        accept = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), ""
        )
        return 200, *await self.page(accept)

    async def page(self, accept: str) -> tuple[str, bytes]:
        """Return content type and text of the page, with the sums of all processes."""
        self._tasks = len(asyncio.all_tasks())
        pipeline = self._pipeline if self._gather is None else await self._gather()
        # Rendering thousands of series takes longer than requests on this loop should wait.
        return await asyncio.to_thread(self._render, pipeline, accept)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text of the page."""
        return self._render(self._pipeline, accept)

    def _render(self, pipeline: ServerMetrics | None, accept: str) -> tuple[str, bytes]:
        from prometheus_client import exposition
        from prometheus_client.registry import Collector

        class Page(Collector):
            def collect(page) -> Iterator[Metric]:  # noqa: N805 - `self` is the server
                return _families(pipeline, self._tasks)

        if "application/openmetrics-text" in accept:
            encode, kind = exposition.choose_encoder(accept)
            return kind, encode(Page())
        return "text/plain; version=1.0.0; charset=utf-8", exposition.generate_latest(Page())


def _families(pipeline: ServerMetrics | None, tasks: int) -> Iterator[Metric]:
    """All families, each name once: a second one would make the whole page unreadable for Prometheus."""
    from prometheus_client import REGISTRY as PROCESS
    from prometheus_client.core import GaugeMetricFamily

    from .registry import REGISTRY

    yield GaugeMetricFamily("mlserver_event_loop_tasks", "Tasks of the server's event loop", tasks)
    own = {"mlserver_event_loop_tasks"}
    for family in pipeline.collect() if pipeline else ():
        own.add(family.name)
        yield family
    registered = (
        family for source in (REGISTRY, PROCESS, *declared.parts()) for family in source.collect()
    )
    yield from merge(chain(registered, shared.collect()), own)


async def _live(receive: Receive, send: Send) -> None:
    """The start and end of the ASGI server that runs this application; there is nothing to do in either."""
    for _ in range(2):
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
