"""ASGI application: routing, authorization, body, endpoint, compression and response, in this
order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from ..access_log import Access, AccessLog
from ..errors import MLServerError
from ..log_context import read_raw_headers, variable
from ..logging import get_logger
from ..metrics.endpoint import MetricsPage
from ..metrics.server_metrics import ServerMetrics
from ..security.authorization import ADMIN, INFER, METRICS, OPEN, Authorizer, Caller
from ..settings import Settings
from ..wire.json import write_document, write_error
from .cors import Cors
from .http.body import MIN_COMPRESSED, ClientDisconnected, Receive, compress, read_body
from .messages import JSON, RawHeaders, Reply, Request
from .routing import MethodNotAllowed, Router
from .runtime_routes.matching import ModelRoutes
from .runtime_routes.wire import retry_after

logger = get_logger()
_HEALTH = "/v2/health/"
_WITHOUT_BODY = ("GET", "HEAD")
_BODY_ERRORS = (400, 413, 415)
_CLIENT_CLOSED_REQUEST = 499  # nginx's status; recorded, never sent
# Scopes of the router's paths by template, where they are not INFER. A model's path has INFER or
# `Route.public`.
_SCOPES = {
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/v2/docs": OPEN,  # a page without data, in which a credential can be entered
    "/v2/models/{model_name}/docs": OPEN,
    "/v2/models/{model_name}/versions/{model_version}/docs": OPEN,
    "/v2/console/access": OPEN,
    "/v2/console/metrics": METRICS,
    "/v2/console/routing": METRICS,
    "/v2/console/workers": METRICS,
    "/v2/console/errors": ADMIN,
    "/v2/console/settings": ADMIN,
    "/v2/repository/models/{model_name}/load": ADMIN,
    "/v2/repository/models/{model_name}/unload": ADMIN,
    "/v2/repository/{repository}/models/{model_name}/load": ADMIN,
    "/v2/repository/{repository}/models/{model_name}/unload": ADMIN,
}

# Methods and paths of `console.endpoints`.
CONSOLE_PATHS = [("GET", path) for path in _SCOPES if path.startswith("/v2/console/")]
# A browser sends `Origin` with POST only, and `admin` depends on it.
CONSOLE_PATHS.append(("POST", "/v2/console/access"))


class RESTApp:
    """ASGI application of one address.

    Args:
        settings: Limits, compression, CORS and root path.
        router: The server's own paths.
        model_routes: The paths that models declare.
        metrics: Counts requests.
        access: Checks credentials and scopes.
        metrics_page: Returns the page at `metrics_endpoint`; None = this address has no such page.
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
        self._default_scope = INFER if access.requires_credentials else OPEN
        self._cors = Cors(settings.cors_settings) if settings.cors_settings is not None else None
        self._access_log = AccessLog.from_settings(settings, "rest")

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        path, root = scope["path"], scope.get("root_path", "")
        if root:
            path = _remove_root(path, root)
        request = Request(
            scope["method"],
            path.rstrip("/") or "/",
            scope["query_string"],
            scope["headers"],
            client=scope["client"],
            target=scope["path"],
            log=read_raw_headers(scope["headers"]),
        )
        variable.set(request.log)
        self._metrics.rest_started(request.method)
        status = _CLIENT_CLOSED_REQUEST
        try:
            reply = await self._respond(request, receive)
            status = reply.status
            await self._send(request, reply, receive, send)
        except ClientDisconnected:
            return
        finally:
            seconds, template = time.perf_counter() - started, request.template
            if template and not template.startswith(_HEALTH):
                self._metrics.rest(request.method, template, status, seconds)
            else:
                self._metrics.rest_dropped(request.method)
            if self._access_log is not None:
                self._log_access(self._access_log, request, status, seconds)
            request.log.has_ended = True

    def flush_log(self) -> None:
        """Write the lines of the access log so far."""
        if self._access_log is not None:
            self._access_log.flush()

    def _log_access(self, log: AccessLog, request: Request, status: int, seconds: float) -> None:
        if request.path.startswith(_HEALTH) and not self._settings.debug:
            return
        if not request.log.model:
            request.log.model = request.segments.get("model_name", "")
            request.log.version = request.segments.get("model_version", "")
        sizes = len(request.body), request.bytes_out
        log.add(Access(request.method, request.path, status, seconds, *sizes), request.log)

    async def _respond(self, request: Request, receive: Receive) -> Reply:
        """Return the reply; every error but a disconnect is one. Sets `request.template`."""
        cors = self._cors
        if cors is not None and cors.is_preflight(request):
            return cors.preflight(request)
        try:
            match = self._router.match(request.method, request.path)
            if match is None:
                reply = await self._respond_to_model_path(request, receive)
            else:
                endpoint, request.segments, request.template = match
                scope = _SCOPES.get(request.template, self._default_scope)
                if scope:
                    await self._check_access(scope, request)
                if request.method not in _WITHOUT_BODY:
                    request.body = await read_body(request, receive, self._settings.max_body_bytes)
                reply = await endpoint(request)
        except MethodNotAllowed as error:
            self._record_error(request, error)
            reply = self._error_reply(error)
            if request.method == "OPTIONS" and not _is_preflight(request):
                reply = Reply(200, headers=_allow(error))
        except MLServerError as error:
            error = self._prefer_model_error(error, request)
            self._record_error(request, error)
            reply = self._error_reply(error)
        except (ClientDisconnected, asyncio.CancelledError):
            raise
        except Exception as error:
            self._record_error(request, error)
            logger.exception("A request for %s failed", request.path)
            reply = Reply(
                500, write_document({"error": "Internal error; the server's log has the reason"})
            )
        if cors is not None:
            reply.headers.extend(cors.headers(request))
        return reply

    async def _respond_to_model_path(self, request: Request, receive: Receive) -> Reply:
        """Return the metrics page or the reply of a model's route; sets `request.template`."""
        if self._is_metrics_path(request.path):
            return await self._metrics_reply(request)
        if request.path == "/" or request.path.startswith("/console"):
            reply = self._console_reply(request)
            if reply is not None:
                return reply
        if self._default_scope and not self._model_routes.is_public(request):
            await self._check_access(self._default_scope, request)
        model_route = self._model_routes.match(request)
        if model_route is None:
            raise self._model_routes.not_found_error(request)
        request.template = model_route.route.path
        if request.method not in _WITHOUT_BODY:
            request.body = await read_body(request, receive, self._settings.max_body_bytes)
        request.segments = {"model_name": model_route.name}
        reply = await self._model_routes.respond(model_route, request)
        if reply.error is not None:
            self._record_error(request, reply.error)
        return reply

    def _is_metrics_path(self, path: str) -> bool:
        """Return whether a path is the metrics page's; a model that declares the same path has
        precedence.
        """
        if self._metrics_page is None or path != self._metrics_path:
            return False
        return not self._model_routes.is_declared(path)

    def _console_reply(self, request: Request) -> Reply | None:
        """Return the reply of `/` or of a file of the console; None if there is none.

        A model that declares the path has precedence.
        """
        if not self._settings.has_console or self._model_routes.is_declared(request.path):
            return None
        from .console import pages  # on the first request of a browser

        reply = pages.respond(request, self._settings.metrics_endpoint)
        if reply is not None and request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(request.method, request.path, ["GET"])
        return reply

    async def _metrics_reply(self, request: Request) -> Reply:
        await self._check_access(METRICS, request)
        if request.method not in _WITHOUT_BODY:
            raise MethodNotAllowed(request.method, request.path, ["GET"])
        assert self._metrics_page is not None
        accept = request.header(b"accept") or b""
        content_type, text = await self._metrics_page(accept.decode("latin-1"))
        return Reply(200, text, content_type)

    async def _check_access(self, scope: str, request: Request) -> None:
        host = request.client[0] if request.client else ""
        await self._access.check(scope, Caller(host, request.headers))

    def _prefer_model_error(self, error: MLServerError, request: Request) -> MLServerError:
        """Return the error of the path's model, if it has one, in place of an error of the body."""
        name = request.segments.get("model_name")
        is_body_error = error.status_code in _BODY_ERRORS
        if name is None or not is_body_error or not request.template.startswith("/v2/models"):
            return error
        version = request.segments.get("model_version")
        return self._model_routes.get_model_error(name, version) or error

    def _record_error(self, request: Request, error: Exception) -> None:
        """Add an error to the recent ones, unless the data plane has done so."""
        if isinstance(error, MLServerError) and error.is_recorded:
            return
        segments = request.segments
        model, version = segments.get("model_name", ""), segments.get("model_version", "")
        operation = f"{request.method} {request.template}".rstrip()
        self._metrics.errors.add(error, operation, model, version)

    def _error_reply(self, error: MLServerError) -> Reply:
        status, body = error.status_code, write_error(error)
        faults = getattr(error, "faults", None)
        if faults and self._settings.validation_status != status:
            status = self._settings.validation_status
            body = write_document({"detail": faults, "error": error.message})
        headers = retry_after(error)
        headers.append((b"x-content-type-options", b"nosniff"))  # errors may quote the request
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, MethodNotAllowed):
            headers += _allow(error)
        if status in (408, 413):
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        return Reply(status, body, JSON, headers)

    async def _send(self, request: Request, reply: Reply, receive: Receive, send: Any) -> None:
        body = reply.body
        if request.log.echoed:
            _echo_ids(request.log.echoed, reply)
        if not isinstance(body, (bytes, list)):
            await self._send_stream(request, reply, body, receive, send)
            return
        size = len(body) if isinstance(body, bytes) else sum(map(len, body))
        if size >= MIN_COMPRESSED and reply.compress and self._settings.gzip_enabled:
            accepted = request.header(b"accept-encoding")
            if accepted is not None:
                reply.body, name = await compress(body, accepted)
                body = reply.body
                if name:
                    reply.headers.append((b"content-encoding", name.encode()))
            reply.headers.append((b"vary", b"Accept-Encoding"))
        request.bytes_out = size if isinstance(body, list) else len(body)
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()}
        )
        if isinstance(body, list):
            for part in body[:-1]:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        last = body[-1] if isinstance(body, list) else body
        await send({"type": "http.response.body", "body": last})

    async def _send_stream(
        self,
        request: Request,
        reply: Reply,
        parts: AsyncIterator[bytes],
        receive: Receive,
        send: Any,
    ) -> None:
        """Send parts as they arrive; cancel the model's work when the client disconnects."""
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()}
        )
        sending = asyncio.ensure_future(_send_parts(parts, send, request))
        watching = asyncio.ensure_future(_wait_disconnected(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            await parts.aclose()  # type: ignore[attr-defined]


def _remove_root(path: str, root: str) -> str:
    """Return a path without the root path.

    It precedes the path once (`Connection` adds it) or twice (the proxy did not strip it).
    """
    while path.startswith(root + "/"):
        path = path[len(root) :]
    return path


def _is_preflight(request: Request) -> bool:
    return request.header(b"access-control-request-method") is not None


def _allow(error: MethodNotAllowed) -> RawHeaders:
    return [(b"allow", ", ".join(error.allowed).encode())]


async def _send_parts(parts: AsyncIterator[bytes], send: Any, request: Request) -> None:
    async for part in parts:
        request.bytes_out += len(part)
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _echo_ids(echoed: Iterable[tuple[str, str]], reply: Reply) -> None:
    """Add the ids of the request's headers, unless the reply has the header already."""
    names = {name for name, _ in reply.headers}
    added = [(name.encode(), value.encode()) for name, value in echoed]
    reply.headers += [header for header in added if header[0] not in names]


async def _wait_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
