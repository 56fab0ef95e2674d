"""Common part of all RPCs: authorization, status codes, metrics, access log, metadata."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NoReturn, Protocol
from urllib.parse import quote, unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor

from ..access_log import Access, AccessLog
from ..errors import MLServerError
from ..log_context import read_headers, variable
from ..logging import get_logger
from ..metrics.server_metrics import ServerMetrics
from ..pipeline import RequestContext
from ..security.authorization import ADMIN, INFER, OPEN, Authorizer, Caller
from .messages import (
    ClientDisconnected,
    Label,
    StreamEnded,
    StreamReader,
    StreamWriter,
    Traffic,
)
from .services import Behavior, get_kind

logger = get_logger().getChild("grpc")

Metadata = tuple[tuple[str, str | bytes], ...]
# Metadata of the present RPC by name: gRPC decodes all of it at each call of its method.
_received_metadata: ContextVar[Mapping[str, Any]] = ContextVar("mlserver_grpc_metadata")
# Characters of a status message: gRPC rejects metadata over 8 KiB and writes some bytes as three.
MAX_DETAILS_CHARS = 2000
_CLIENT_CLOSED_REQUEST = 499
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_KINDS = {
    "unary_unary": "UNARY",
    "unary_stream": "SERVER_STREAMING",
    "stream_unary": "CLIENT_STREAMING",
    "stream_stream": "BIDI_STREAMING",
}


class Context(Protocol):
    """The used part of `grpc.aio.ServicerContext`."""

    async def abort(self, code: Any, details: str, trailing_metadata: Metadata) -> NoReturn: ...

    async def write(self, message: Any) -> None: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def time_remaining(self) -> float | None: ...

    def set_trailing_metadata(self, metadata: Metadata) -> None: ...

    def set_compression(self, compression: Any) -> None: ...

    def peer(self) -> str: ...


# -- errors --


def to_server_error(error: BaseException) -> MLServerError:
    """Convert an exception for the client; the text of unexpected ones is logged, not sent."""
    if isinstance(error, MLServerError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return to_server_error(error.exceptions[0])
    logger.error("An RPC failed", exc_info=error)
    return MLServerError("Internal server error", 500)


async def abort(context: Context, error: MLServerError, metadata: Metadata = ()) -> None:
    """End the RPC with the status of an error, and further metadata."""
    code = getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN)
    details = error.message
    if len(details) > MAX_DETAILS_CHARS:
        details = details[:MAX_DETAILS_CHARS] + "..."
    retry = format_retry(error.retry_after)
    await context.abort(code, details, (*retry, *metadata))


def format_retry(seconds: float | None) -> Metadata:
    """Return trailing metadata that says when to retry; None = nothing.

    Clients with a retry policy wait for `grpc-retry-pushback-ms` by themselves (gRFC A6).
    """
    if seconds is None:
        return ()
    return ("retry-after", f"{seconds:g}"), ("grpc-retry-pushback-ms", f"{seconds * 1000:.0f}")


# -- around every RPC --


class RPCInterceptor:
    """Wraps the methods of a servicer with authorization, metrics and error handling.

    Unary methods are `async (request, context) -> response`, streaming ones
    `async (request or requests, context, writer) -> None`.

    Attributes:
        running: Number of RPCs that have not ended.
    """

    def __init__(
        self, metrics: ServerMetrics, access: Authorizer, access_log: AccessLog | None = None
    ) -> None:
        self._metrics = metrics
        self._access = access
        self._access_log = access_log
        self._release: asyncio.Event | None = None
        self._readers: set[StreamReader] = set()
        self._is_ending_streams = False
        self.running = 0

    def hold_responses(self) -> None:
        """Delay responses, messages of streams and ends until `release_responses` is called."""
        self._release = asyncio.Event()

    async def wait_released(self) -> None:
        """Return when responses are not held."""
        if self._release is not None:
            await self._release.wait()

    def release_responses(self) -> None:
        if self._release is not None:
            self._release.set()
            self._release = None

    def end_streams(self) -> None:
        """End each stream when its client sends no request and those that it sent are answered."""
        self._is_ending_streams = True
        for reader in self._readers:
            reader.end()

    def flush_log(self) -> None:
        """Write the lines of the access log so far."""
        if self._access_log is not None:
            self._access_log.flush()

    def __call__(self, method: MethodDescriptor, behavior: Behavior) -> Behavior:
        kind = get_kind(method)
        label = (_KINDS[kind], method.containing_service.full_name, method.name)
        metrics = self._metrics
        behavior = self._with_authorization(get_scope(method), behavior)

        async def unary(request: Any, context: Context) -> Any:
            metrics.grpc_received(*label)
            is_invalid = isinstance(request, MLServerError)
            call = _raise(request) if is_invalid else behavior(request, context)
            response = await self._run(label, context, call, self._measure(request))
            metrics.grpc_sent(*label)
            return response

        async def server_stream(request: Any, context: Context) -> None:
            metrics.grpc_received(*label)
            traffic = self._measure(request)
            writer = StreamWriter(context, metrics, label, self.wait_released, traffic)
            is_invalid = isinstance(request, MLServerError)
            call = _raise(request) if is_invalid else behavior(request, context, writer)
            await self._run(label, context, call, traffic)

        async def both_streams(requests: AsyncIterator[Any], context: Context) -> None:
            traffic = self._measure()
            writer = StreamWriter(context, metrics, label, self.wait_released, traffic)
            reader = StreamReader(requests, metrics, label, traffic)
            call = self._run_stream(reader, behavior(reader, context, writer))
            await self._run(label, context, call, traffic)

        wrappers: dict[str, Behavior] = {
            "unary_unary": unary,
            "unary_stream": server_stream,
            "stream_stream": both_streams,
        }
        return wrappers[kind]

    async def _run_stream(self, reader: StreamReader, call: Awaitable[None]) -> None:
        """Run a call that reads a stream; `end_streams` ends it.

        Raises:
            StreamEnded: the server stopped reading before the client had ended its side.
        """
        self._readers.add(reader)
        if self._is_ending_streams:
            reader.end()
        try:
            await call
        finally:
            self._readers.discard(reader)
        if reader.is_cut:
            raise StreamEnded()

    def _measure(self, request: Any = None) -> Traffic | None:
        """Return the measure of an RPC's messages; None if there is no access log."""
        return None if self._access_log is None else Traffic(request)

    def _with_authorization(self, scope: str, behavior: Behavior) -> Behavior:
        """Wrap a method with the check of its scope."""
        access = self._access
        if scope == OPEN or (scope != ADMIN and not access.requires_credentials):
            return behavior

        async def authorized(request: Any, context: Context, *writer: StreamWriter) -> Any:
            await access.check(scope, get_caller(context))
            return await behavior(request, context, *writer)

        return authorized

    async def _run(
        self, label: Label, context: Context, call: Awaitable[Any], traffic: Traffic | None
    ) -> Any:
        started = time.perf_counter()
        self._metrics.grpc_started(*label)
        self.running += 1
        metadata = dict(context.invocation_metadata() or ())
        _received_metadata.set(metadata)
        log_context = read_headers(metadata)
        variable.set(log_context)
        code, status = "OK", 200
        try:
            result = await call
            if traffic is not None:
                traffic.sent = result
            if self._release is not None:
                await self._release.wait()
            return result
        except asyncio.CancelledError:
            code, status = "CANCELLED", _CLIENT_CLOSED_REQUEST
            raise
        except Exception as error:
            server_error = to_server_error(error)
            code, status = server_error.code, server_error.status_code
            if not server_error.is_recorded and not isinstance(error, ClientDisconnected):
                self._metrics.errors.add(error, f"/{label[1]}/{label[2]}")
            if self._release is not None:
                await self._release.wait()
        finally:
            self.running -= 1
            seconds = time.perf_counter() - started
            self._metrics.grpc(label, code, seconds)
            if self._access_log is not None and traffic is not None:
                path = f"/{label[1]}/{label[2]}"
                sizes = traffic.count_received(), traffic.count_sent()
                entry = Access("POST", path, status, seconds, *sizes, grpc_code=code)
                self._access_log.add(entry, log_context)
            log_context.has_ended = True
        if not isinstance(server_error, ClientDisconnected):
            await abort(context, server_error, log_context.echoed)


async def _raise(error: MLServerError) -> None:
    raise error


# -- access --

_OPEN = frozenset(("ServerLive", "ServerReady"))
_ADMIN = frozenset(("RepositoryModelLoad", "RepositoryModelUnload"))


def get_scope(method: MethodDescriptor) -> str:
    """Return the scope that a method requires."""
    if method.name in _OPEN or method.containing_service.full_name == "grpc.health.v1.Health":
        return OPEN
    return ADMIN if method.name in _ADMIN else INFER


def get_caller(context: Context) -> Caller:
    """Return the caller. gRPC writes peers as `ipv4:1.2.3.4:5` and `ipv6:%5B::1%5D:5`."""
    kind, _, rest = context.peer().partition(":")
    address = unquote(rest.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else ""
    return Caller(address, _received_metadata.get())


# -- metadata --


def create_request_context(context: Context, operation: str | None = None) -> RequestContext:
    """Return the context of a request: deadline, metadata as headers, name of the RPC."""
    log_context = variable.get()
    remaining = context.time_remaining()
    request_context = RequestContext(
        deadline=None if remaining is None else time.monotonic() + remaining,
        headers=dict(_received_metadata.get()),
        operation=operation,
    )
    if log_context is not None:
        request_context.trace_parent = log_context.trace_parent
    return request_context


def to_metadata(headers: Iterable[tuple[str, Any]]) -> Metadata:
    """Convert headers to trailing metadata; names that gRPC does not allow are omitted."""
    named = ((to_metadata_name(name), value) for name, value in headers)
    return tuple(
        (name, to_metadata_value(name, value)) for name, value in named if name is not None
    )


@lru_cache(maxsize=1024)
def to_metadata_name(name: str) -> str | None:
    """Return a header's name in lower case; None for reserved and invalid names."""
    lower = name.lower()
    if not lower or lower.startswith("grpc-") or not _NAME.issuperset(lower):
        return None
    return lower


def to_metadata_value(name: str, value: Any) -> str | bytes:
    """Return bytes for `-bin` names, else printable ASCII with the rest percent-encoded."""
    if name.endswith("-bin"):
        return value if isinstance(value, bytes) else str(value).encode()
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text if text.isascii() and text.isprintable() else quote(text, safe=_PRINTABLE)
