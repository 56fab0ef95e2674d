"""What every RPC shares: errors become statuses, calls are counted and logged, metadata is read and written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from functools import lru_cache
from typing import Any, NoReturn, Protocol
from urllib.parse import quote, unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor

from ..errors import MLServerError
from ..logging import get_logger
from ..metrics.server_metrics import ServerMetrics
from ..pipeline import RequestContext
from ..security.authorization import ADMIN, INFER, OPEN, Authorizer, Caller
from .services import Behaviour, kind_of

logger = get_logger().getChild("grpc")

Metadata = tuple[tuple[str, str | bytes], ...]
Label = tuple[str, str, str]
# gRPC refuses metadata over 8 KiB; a byte may be written as three.
MAX_DETAILS = 2000
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_KINDS = {
    "unary_unary": "UNARY",
    "unary_stream": "SERVER_STREAMING",
    "stream_unary": "CLIENT_STREAMING",
    "stream_stream": "BIDI_STREAMING",
}


class Context(Protocol):
    """What we use of gRPC's side of one RPC."""

    async def abort(self, code: Any, details: str, trailing_metadata: Metadata) -> NoReturn: ...

    async def write(self, message: Any) -> None: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def time_remaining(self) -> float | None: ...

    def set_trailing_metadata(self, metadata: Metadata) -> None: ...

    def set_compression(self, compression: Any) -> None: ...

    def peer(self) -> str: ...


# -- errors --


def failure_of(error: BaseException) -> MLServerError:
    """Any exception as an error for the caller. What is not ours goes into the log and is not told."""
    if isinstance(error, MLServerError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return failure_of(error.exceptions[0])
    logger.error("An RPC failed", exc_info=error)
    return MLServerError("Internal server error", 500)


async def abort(context: Context, failure: MLServerError) -> None:
    """End the RPC with the status of an error."""
    code = getattr(grpc.StatusCode, failure.code, grpc.StatusCode.UNKNOWN)
    details = failure.message
    if len(details) > MAX_DETAILS:
        details = details[:MAX_DETAILS] + "..."
    seconds = getattr(failure, "retry_after", None)
    retry: Metadata = () if seconds is None else (("retry-after", f"{seconds:g}"),)
    await context.abort(code, details, retry)


class ClientDisconnected(MLServerError):
    """The caller ended the call: there is nobody to tell, and nothing went wrong here."""

    def __init__(self) -> None:
        super().__init__("The client ended the call", 499)


# -- around every RPC --


class RPCInterceptor:
    """Put around the methods of a servicer.

    Unary methods are `async (request, context) -> response`; those that stream their responses are
    `async (request or requests, context, writer) -> None`.
    """

    def __init__(self, metrics: ServerMetrics, access: Authorizer, access_log: bool) -> None:
        self._metrics = metrics
        self._access = access
        self._access_log = access_log
        self._held: asyncio.Event | None = None

    def hold_answers(self) -> None:
        """Let no RPC end until `release_answers`."""
        self._held = asyncio.Event()

    def release_answers(self) -> None:
        if self._held is not None:
            self._held.set()
            self._held = None

    def __call__(self, method: MethodDescriptor, behaviour: Behaviour) -> Behaviour:
        kind = kind_of(method)
        label = (_KINDS[kind], method.containing_service.full_name, method.name)
        metrics = self._metrics
        behaviour = self._checked(scope_of(method), behaviour)

        async def unary(request: Any, context: Context) -> Any:
            metrics.grpc_received(*label)
            work = (
                _refuse(request)
                if isinstance(request, MLServerError)
                else behaviour(request, context)
            )
            response = await self._run(label, context, work)
            metrics.grpc_sent(*label)
            return response

        async def server_stream(request: Any, context: Context) -> None:
            metrics.grpc_received(*label)
            writer = StreamWriter(context, metrics, label)
            work = (
                _refuse(request)
                if isinstance(request, MLServerError)
                else behaviour(request, context, writer)
            )
            await self._run(label, context, work)

        async def both_streams(requests: AsyncIterator[Any], context: Context) -> None:
            counted = _counted(requests, metrics, label)
            await self._run(
                label, context, behaviour(counted, context, StreamWriter(context, metrics, label))
            )

        return {"unary_unary": unary, "unary_stream": server_stream, "stream_stream": both_streams}[
            kind
        ]

    def _checked(self, scope: str, behaviour: Behaviour) -> Behaviour:
        """The method for callers who may call it."""
        access = self._access
        if scope == OPEN or (scope != ADMIN and not access.asks_everybody):
            return behaviour

        async def checked(request: Any, context: Context, *writer: StreamWriter) -> Any:
            await access.check(scope, caller_of(context))
            return await behaviour(request, context, *writer)

        return checked

    async def _run(self, label: Label, context: Context, work: Awaitable[Any]) -> Any:
        started = time.perf_counter()
        self._metrics.grpc_started(*label)
        code = "OK"
        try:
            result = await work
            if self._held is not None:
                await self._held.wait()
            return result
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            failure = failure_of(error)
            code = failure.code
            if self._held is not None:
                await self._held.wait()
        finally:
            seconds = time.perf_counter() - started
            self._metrics.grpc(label, code, seconds)
            if self._access_log:
                logger.info("/%s/%s %s %.1f ms", label[1], label[2], code, seconds * 1e3)
        if not isinstance(failure, ClientDisconnected):
            await abort(context, failure)


class StreamWriter:
    """Sends the messages of one stream, one at a time whoever calls."""

    def __init__(self, context: Context, metrics: ServerMetrics, label: Label) -> None:
        self._context = context
        self._lock = asyncio.Lock()
        self._metrics = metrics
        self._label = label

    async def __call__(self, message: Any) -> None:
        """Raises `ClientDisconnected` if nobody is there any more to read it."""
        async with self._lock:
            try:
                await self._context.write(message)
            except grpc.aio.InternalError:  # this is how gRPC says that the call is over
                raise ClientDisconnected() from None
        self._metrics.grpc_sent(*self._label)


async def _counted(
    requests: AsyncIterator[Any], metrics: ServerMetrics, label: Label
) -> AsyncIterator[Any]:
    async for request in requests:
        metrics.grpc_received(*label)
        if isinstance(request, MLServerError):
            raise request
        yield request


async def _refuse(error: MLServerError) -> None:
    raise error


# -- access --

_OPEN = frozenset(("ServerLive", "ServerReady"))
_ADMIN = frozenset(("RepositoryModelLoad", "RepositoryModelUnload"))


def scope_of(method: MethodDescriptor) -> str:
    """What a caller needs for a method."""
    if method.name in _OPEN or method.containing_service.full_name == "grpc.health.v1.Health":
        return OPEN
    return ADMIN if method.name in _ADMIN else INFER


def caller_of(context: Context) -> Caller:
    """Who calls. gRPC writes `ipv4:1.2.3.4:5` and `ipv6:%5B::1%5D:5`."""
    kind, _, rest = context.peer().partition(":")
    address = unquote(rest.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else ""
    return Caller(address, dict(context.invocation_metadata() or ()))


# -- metadata --


def call_of(context: Context, operation: str | None = None) -> RequestContext:
    """What accompanies a request: its deadline, its metadata, and the RPC that it came by."""
    headers: dict[str, Any] = dict(context.invocation_metadata() or ())
    remaining = context.time_remaining()
    return RequestContext(
        deadline=None if remaining is None else time.monotonic() + remaining,
        headers=headers,
        operation=operation,
    )


def metadata_of(headers: Iterable[tuple[str, Any]]) -> Metadata:
    """Headers as trailing metadata: names in lower case; what gRPC could not carry is escaped (values) or left out."""
    named = ((metadata_name(name), value) for name, value in headers)
    return tuple((name, metadata_value(name, value)) for name, value in named if name is not None)


@lru_cache(maxsize=1024)
def metadata_name(name: str) -> str | None:
    """A header's name as gRPC takes it; None for those that it keeps for itself or cannot carry."""
    lower = name.lower()
    if not lower or lower.startswith("grpc-") or not _NAME.issuperset(lower):
        return None
    return lower


def metadata_value(name: str, value: Any) -> str | bytes:
    """A value for metadata: bytes for `-bin` names, else printable ASCII with the rest percent-encoded."""
    if name.endswith("-bin"):
        return value if isinstance(value, bytes) else str(value).encode()
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text if text.isascii() and text.isprintable() else quote(text, safe=_PRINTABLE)
