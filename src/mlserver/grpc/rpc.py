"""Common part of all RPCs: authorization, status codes, metrics, access log, metadata."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NoReturn, Protocol
from urllib.parse import quote, unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from ..access_log import Access, AccessLog
from ..errors import MLServerError
from ..log_context import read_headers, variable
from ..logging import get_logger
from ..metrics.server_metrics import ServerMetrics
from ..pipeline import RequestContext
from ..security.authorization import ADMIN, INFER, OPEN, Authorizer, Caller
from .services import Behavior, get_kind

logger = get_logger().getChild("grpc")

Metadata = tuple[tuple[str, str | bytes], ...]
Label = tuple[str, str, str]
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
    retry = format_retry(getattr(error, "retry_after", None))
    await context.abort(code, details, (*retry, *metadata))


def format_retry(seconds: float | None) -> Metadata:
    """Return trailing metadata that says when to retry; None = nothing.

    Clients with a retry policy wait for `grpc-retry-pushback-ms` by themselves (gRFC A6).
    """
    if seconds is None:
        return ()
    return ("retry-after", f"{seconds:g}"), ("grpc-retry-pushback-ms", f"{seconds * 1000:.0f}")


class ClientDisconnected(MLServerError):
    """The client ended the call; not an error of the server."""

    def __init__(self) -> None:
        super().__init__("The client ended the call", 499)


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
            counted = _count_requests(requests, metrics, label, traffic)
            await self._run(label, context, behavior(counted, context, writer), traffic)

        wrappers: dict[str, Behavior] = {
            "unary_unary": unary,
            "unary_stream": server_stream,
            "stream_stream": both_streams,
        }
        return wrappers[kind]

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


class Traffic:
    """The messages of one RPC, whose sizes are computed for the access log only.

    Attributes:
        sent: The response of a unary method; None = none yet, or a stream.
    """

    __slots__ = ("_received", "_streamed_in", "_streamed_out", "sent")

    def __init__(self, request: Any = None) -> None:
        self._received = request
        self.sent: Any = None
        self._streamed_in = self._streamed_out = 0

    def add_received(self, message: Any) -> None:
        self._streamed_in += _get_size(message)

    def add_sent(self, message: Any) -> None:
        self._streamed_out += _get_size(message)

    def count_received(self) -> int:
        """Return the bytes of all requests."""
        return _get_size(self._received) + self._streamed_in

    def count_sent(self) -> int:
        """Return the bytes of all responses."""
        return _get_size(self.sent) + self._streamed_out


def _get_size(message: Any) -> int:
    """Return the bytes of a message; 0 for one that could not be parsed."""
    if isinstance(message, bytes):
        return len(message)
    return int(message.ByteSize()) if isinstance(message, Message) else 0


class StreamWriter:
    """Sends the messages of one stream, also for concurrent callers."""

    def __init__(
        self,
        context: Context,
        metrics: ServerMetrics,
        label: Label,
        wait_released: Callable[[], Awaitable[None]],
        traffic: Traffic | None = None,
    ) -> None:
        self._traffic = traffic
        self._context = context
        self._wait_released = wait_released
        self._lock = asyncio.Lock()
        self._metrics = metrics
        self._label = label

    async def __call__(self, message: Any) -> None:
        """Send a message. Raises `ClientDisconnected` if the client has ended the call."""
        async with self._lock:
            await self._wait_released()
            try:
                await self._context.write(message)
            except grpc.aio.InternalError:  # raised by gRPC for an ended call
                raise ClientDisconnected() from None
        if self._traffic is not None:
            self._traffic.add_sent(message)
        self._metrics.grpc_sent(*self._label)


async def _count_requests(
    requests: AsyncIterator[Any], metrics: ServerMetrics, label: Label, traffic: Traffic | None
) -> AsyncIterator[Any]:
    async for request in requests:
        if traffic is not None:
            traffic.add_received(request)
        metrics.grpc_received(*label)
        if isinstance(request, MLServerError):
            raise request
        yield request


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
