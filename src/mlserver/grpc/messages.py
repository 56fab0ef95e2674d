"""The messages of one RPC: streams in both directions, and their sizes for the access log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from ..errors import MLServerError, Unavailable
from ..metrics.server_metrics import ServerMetrics

Label = tuple[str, str, str]
# Seconds without a request after which a stream ends that the server is ending: those that its
# client has sent are read in this time.
LAST_REQUEST_SECONDS = 0.25


class MessageContext(Protocol):
    """The part of `grpc.aio.ServicerContext` that sends messages."""

    async def write(self, message: Any) -> None: ...


class ClientDisconnected(MLServerError):
    """The client ended the call; not an error of the server."""

    def __init__(self) -> None:
        super().__init__("The client ended the call", 499)


class StreamEnded(Unavailable):
    """The server has ended a stream whose client had not: it is stopping."""

    is_recorded = True

    def __init__(self) -> None:
        super().__init__(
            "The server is stopping: requests without a response were not read; send them over"
            " another stream"
        )


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


class StreamReader:
    """Iterator over the requests of one stream, which `end` ends before the client does.

    Attributes:
        is_cut: Whether the iteration has ended before the client has ended its side of the stream.

    Raises:
        MLServerError: a request cannot be parsed.
    """

    def __init__(
        self,
        requests: AsyncIterator[Any],
        metrics: ServerMetrics,
        label: Label,
        traffic: Traffic | None = None,
    ) -> None:
        self._requests = requests
        self._metrics = metrics
        self._label = label
        self._traffic = traffic
        self._is_ending = False
        # Done when a request has arrived, or when none is awaited any more.
        self._arrival: asyncio.Future[None] | None = None
        self.is_cut = False

    def end(self) -> None:
        """End the iteration as soon as no request arrives for `LAST_REQUEST_SECONDS`."""
        self._is_ending = True
        if self._arrival is not None:
            self._limit(self._arrival)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = None if self.is_cut else await self._wait_for_request()
        if request is None:
            raise StopAsyncIteration
        if self._traffic is not None:
            self._traffic.add_received(request)
        self._metrics.grpc_received(*self._label)
        if isinstance(request, MLServerError):
            raise request
        return request

    async def _wait_for_request(self) -> Any:
        """Return the next request; None at the end."""
        loop = asyncio.get_running_loop()
        self._arrival = arrival = loop.create_future()
        # A read is never cancelled: gRPC's library would still write to the memory of its message.
        # A read that is left ends with the call.
        reading = loop.create_task(self._read())
        reading.add_done_callback(lambda _: _set_done(arrival))
        if self._is_ending:
            self._limit(arrival)
        try:
            await arrival
        finally:
            self._arrival = None
            if not reading.done():
                reading.add_done_callback(_ignore_result)
        if reading.done():
            return reading.result()
        self.is_cut = True
        return None

    async def _read(self) -> Any:
        return await anext(self._requests, None)

    def _limit(self, arrival: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_later(LAST_REQUEST_SECONDS, _set_done, arrival)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ignore_result(reading: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a read that ended with its call, so that it is not logged."""
    if not reading.cancelled():
        reading.exception()


class StreamWriter:
    """Sends the messages of one stream, also for concurrent callers."""

    def __init__(
        self,
        context: MessageContext,
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
