"""The ASGI application: one request at a time through matching, body, endpoint, compression and reply, in this order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..metrics.endpoint import MetricsPage
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import ADMIN, INFER, METRICS, OPEN, Authorizer, Caller
from ..settings import Settings
from ..wire.json import write_document, write_error
from .cors import Cors
from .http.body import MIN_COMPRESSED, ClientGone, Receive, compressed, read_body
from .messages import JSON, RawHeaders, Reply, Request
from .routing import MethodNotAllowed, Router
from .runtime_routes.matching import ModelRoutes
from .runtime_routes.wire import retry_after

logger = get_logger()
_HEALTH = "/v2/health/"
_BODY_FAULTS = (400, 413, 415)
# Scopes of the fixed paths, by template, where they are not INFER. A model's path is INFER or `Route.public`.
_SCOPES = {
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/v2/docs": OPEN,  # a page without data, in which a credential can be given
    "/v2/models/{model_name}/docs": OPEN,
    "/v2/models/{model_name}/versions/{model_version}/docs": OPEN,
    **{
        f"{repository}/models/{{model_name}}/{change}": ADMIN
        for repository in ("/v2/repository", "/v2/repository/{repository}")
        for change in ("load", "unload")
    },
}


class RESTApp:
    """Bare ASGI; the only caller of endpoints.

    Args:
        settings: Limits, compression, CORS and root path.
        router: The fixed paths.
        model_routes: The paths that models declare.
        metrics: Counts requests.
        access: Who may do what.
        metrics_page: Gives the page at `metrics_endpoint`; None = there is none on this port.
    """

    def __init__(
        self,
        settings: Settings,
        router: Router,
        model_routes: ModelRoutes,
        metrics: ServerMetrics,
        access: Authorizer,
        metrics_page: MetricsPage | None = None,
    ) -> None:
        self._settings = settings
        self._router = router
        self._model_routes = model_routes
        self._metrics = metrics
        self._access = access
        self._metrics_page = metrics_page
        self._metrics_path = "/" + (settings.metrics_endpoint or "").strip("/")
        self._else_needs = INFER if access.requires_credentials else OPEN
        self._cors = Cors(settings.cors_settings) if settings.cors_settings is not None else None
        self._access_log = settings.debug if settings.access_log is None else settings.access_log

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request = Request(
            scope["method"], self._path(scope), scope["query_string"], scope["headers"]
        )
        request.client = scope["client"]
        template = ""
        self._metrics.rest_started(request.method)
        status = 499  # the caller left
        try:
            reply, template = await self._reply(request, receive)
            status = reply.status
            await self._send(request, reply, receive, send)
        except ClientGone:
            return
        finally:
            seconds = time.perf_counter() - started
            if template and not template.startswith(_HEALTH):
                self._metrics.rest(request.method, template, status, seconds)
            else:
                self._metrics.rest_dropped(request.method)
            if self._access_log and not (
                request.path.startswith(_HEALTH) and not self._settings.debug
            ):
                logger.info(
                    '"%s %s" %d %.1f ms', request.method, request.path, status, seconds * 1000
                )

    def _path(self, scope: Any) -> str:
        path: str = scope["path"]
        root = scope.get("root_path", "")
        # Proxies strip the root path or they do not; uvicorn puts it in front of what came.
        while root and path.startswith(root + "/"):
            path = path[len(root) :]
        return path.rstrip("/") or "/"

    async def _reply(self, request: Request, receive: Receive) -> tuple[Reply, str]:
        """The reply to a request, and the template of its path ("" = no path matched)."""
        template = ""
        try:
            if self._cors is not None and self._cors.is_preflight(request):
                return self._cors.preflight(request), ""
            found = self._router.match(request.method, request.path)
            if found is not None:
                endpoint, request.segments, template = found
                request.template = template
                await self._check_access(_SCOPES.get(template, self._else_needs), request)
                await self._take_body(request, receive)
                reply = await endpoint(request)
            elif self._is_metrics(request.path):
                reply = await self._metrics_reply(request)
            else:
                if self._else_needs and not self._model_routes.is_public(request):
                    await self._check_access(self._else_needs, request)
                own = self._model_routes.match(request)
                if own is None:
                    raise self._model_routes.no_route(request)
                request.template = template = own.route.path
                await self._take_body(request, receive)
                reply = await self._model_routes.answer(own, request)
        except MethodNotAllowed as error:
            asks = (
                request.method == "OPTIONS"
                and request.header(b"access-control-request-method") is None
            )
            reply = Reply(200, headers=_allow(error)) if asks else self._error(error)
        except MLServerError as error:
            reply = self._error(self._path_first(error, request, template))
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("A request for %s failed", request.path)
            reply = Reply(
                500, write_document({"error": "Internal error; the server's log has the reason"})
            )
        if self._cors is not None:
            reply.headers.extend(self._cors.headers(request))
        return reply, template

    def _is_metrics(self, path: str) -> bool:
        """Whether a path is the metrics page's; a model that declares the same path goes first."""
        if self._metrics_page is None or path != self._metrics_path:
            return False
        return not self._model_routes.is_declared(path)

    async def _metrics_reply(self, request: Request) -> Reply:
        await self._check_access(METRICS, request)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(request.method, request.path, ["GET"])
        assert self._metrics_page is not None
        accept = request.header(b"accept") or b""
        content_type, text = await self._metrics_page(accept.decode("latin-1"))
        return Reply(200, text, content_type)

    async def _check_access(self, scope: str, request: Request) -> None:
        if scope:
            await self._access.check(
                scope, Caller(request.client[0] if request.client else "", request.headers)
            )

    async def _take_body(self, request: Request, receive: Receive) -> None:
        if request.method not in ("GET", "HEAD"):
            request.body = await read_body(request, receive, self._settings.max_body_bytes)

    def _path_first(self, error: MLServerError, request: Request, template: str) -> MLServerError:
        """Return the error to answer: a fault of the path's model is said before one of the body."""
        name = request.segments.get("model_name")
        if (
            name is None
            or error.status_code not in _BODY_FAULTS
            or not template.startswith("/v2/models")
        ):
            return error
        return (
            self._model_routes.fault_of_model(name, request.segments.get("model_version")) or error
        )

    def _error(self, error: MLServerError) -> Reply:
        status, body = error.status_code, write_error(error)
        faults = getattr(error, "faults", None)
        if faults and self._settings.validation_status != status:
            status = self._settings.validation_status
            body = write_document({"detail": faults, "error": error.message})
        headers = retry_after(error)
        headers.append((b"x-content-type-options", b"nosniff"))  # texts may quote the caller
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, MethodNotAllowed):
            headers += _allow(error)
        if status in (408, 413):
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        return Reply(status, body, JSON, headers)

    async def _send(self, request: Request, reply: Reply, receive: Receive, send: Any) -> None:
        body = reply.body
        if not isinstance(body, (bytes, list)):
            await self._send_stream(reply, body, receive, send)
            return
        size = len(body) if isinstance(body, bytes) else sum(map(len, body))
        if size >= MIN_COMPRESSED and reply.compress and self._settings.gzip_enabled:
            accepted = request.header(b"accept-encoding")
            if accepted is not None:
                reply.body, name = await compressed(body, accepted)
                body = reply.body
                if name:
                    reply.headers.append((b"content-encoding", name.encode()))
            reply.headers.append((b"vary", b"Accept-Encoding"))
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()}
        )
        if isinstance(body, list):
            for part in body[:-1]:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        last = body[-1] if isinstance(body, list) else body
        await send({"type": "http.response.body", "body": last})

    async def _send_stream(
        self, reply: Reply, parts: AsyncIterator[bytes], receive: Receive, send: Any
    ) -> None:
        """Send as it comes; when the caller leaves, the work is stopped."""
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()}
        )
        sending = asyncio.ensure_future(_send_parts(parts, send))
        watching = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            await parts.aclose()  # type: ignore[attr-defined]


def _allow(error: MethodNotAllowed) -> RawHeaders:
    return [(b"allow", ", ".join(error.allowed).encode())]


async def _send_parts(parts: AsyncIterator[bytes], send: Any) -> None:
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
