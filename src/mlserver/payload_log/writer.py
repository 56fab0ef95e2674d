"""Threads that write events to a file, or send them to an address.

Their queue is bounded. Events that do not fit are dropped and counted, so that neither a slow disk
nor a receiver that hangs delays a request or uses more memory. Encoding and masking run in these
threads. The cost of a request is the copy of its tensors and one `SimpleQueue.put`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..logging import get_logger
from ..metrics.model_metrics import ModelMetrics
from ..settings.payload_log import PayloadLogSettings
from .cloud_events import CloudEventSender, NotDelivered
from .encoding import encode_body, encode_line
from .events import PayloadEvent
from .queue import EventQueue
from .rotating_file import RotatingFile, WriteFailed

logger = get_logger()

# Events that are written to a file together, and seconds in which they are collected. One event at
# a time would switch between this thread and the event loop for each, which slows both down.
FILE_BATCH = 32
COLLECT_SECONDS = 0.005
# Threads that send events to an address; a file has one.
SENDERS = 4
# Seconds in which the last events are written at shutdown.
FLUSH_LIMIT = 2.0
# Seconds between two warnings about the same destination.
WARNING_INTERVAL = 60.0


class Destination(Protocol):
    """The file or address to which one thread writes events."""

    def write(self, events: list[PayloadEvent]) -> list[str | None]:
        """Write events; return for each the reason if it could not be written."""
        ...

    def close(self) -> None: ...


Warn = Callable[[str], None]


class FileDestination:
    """Lines of a file."""

    def __init__(self, file: RotatingFile, warn: Warn) -> None:
        self._file = file
        self._warn = warn

    def write(self, events: list[PayloadEvent]) -> list[str | None]:
        lines = [_encode(encode_line, event, self._warn) for event in events]
        reasons: list[str | None] = [None if line else "unreadable" for line in lines]
        try:
            self._file.append([line for line in lines if line])
        except WriteFailed as error:
            self._file.close()
            self._warn(f"cannot be written: {error}")
            encoded = [index for index, line in enumerate(lines) if line]
            for index in encoded[error.written :]:
                reasons[index] = "write_failed"
        return reasons

    def close(self) -> None:
        self._file.close()


class AddressDestination:
    """CloudEvents. Errors of requests are not sent: KServe's logger sends no such event."""

    def __init__(self, sender: CloudEventSender, warn: Warn) -> None:
        self._sender = sender
        self._warn = warn

    def write(self, events: list[PayloadEvent]) -> list[str | None]:
        return [self._send(event) for event in events]

    def _send(self, event: PayloadEvent) -> str | None:
        if event.error is not None:
            return None
        body = _encode(encode_body, event, self._warn)
        if not body:
            return "unreadable"
        try:
            self._sender.send(event, body)
        except NotDelivered as error:
            self._warn(f"events are not accepted: {error}")
            return "not_delivered"
        return None

    def close(self) -> None:
        self._sender.close()


def _encode(encode: Callable[[PayloadEvent], bytes], event: PayloadEvent, warn: Warn) -> bytes:
    """Return an encoded event; b"" if it cannot be encoded."""
    try:
        return encode(event)
    except Exception as error:
        # The text of the error may quote a value.
        warn(f"an event cannot be encoded: {type(error).__name__}")
        return b""


class PayloadWriter:
    """The queue and the threads of one destination.

    Args:
        settings: Names the destination.
        process_index: Position of this process among those that serve HTTP; 0 = the server.
    """

    def __init__(self, settings: PayloadLogSettings, process_index: int) -> None:
        assert settings.to is not None
        self.settings = settings
        self._to = settings.to
        self._queue = EventQueue()
        self._stopping = threading.Event()
        self._count_lock = threading.Lock()
        self._next_warning = 0.0
        self._is_closed = False
        create = _make_factory(settings, process_index, self._stopping, self._warn)
        self._batches = (1, 0.0) if settings.is_address else (FILE_BATCH, COLLECT_SECONDS)
        count = SENDERS if settings.is_address else 1
        self._threads = [
            threading.Thread(target=self._run, args=(create,), name="payload-log", daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, event: PayloadEvent, metrics: ModelMetrics) -> None:
        """Add an event to the queue; drop it if the queue is full."""
        event.metrics = metrics
        if self._is_closed:
            metrics.payload_dropped("shutdown")
        elif not self._queue.put(event):
            metrics.payload_dropped("queue_full")
            self._warn("the queue is full: events arrive faster than they are written")

    async def close(self, limit: float = FLUSH_LIMIT) -> None:
        """Write the events in the queue, for at most `limit` seconds; drop the others."""
        self._is_closed = True
        self._queue.close(len(self._threads))
        deadline = time.monotonic() + limit
        await asyncio.to_thread(self._join, deadline)
        self._stopping.set()
        dropped = self._queue.clear()
        for event in dropped:
            _count(event, "shutdown")
        if dropped:
            logger.warning(
                "Payload log '%s': %d events are lost: not written within %s s at shutdown",
                self._to,
                len(dropped),
                limit,
            )

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- in the threads --

    def _run(self, create: Callable[[], Destination]) -> None:
        destination = create()
        while events := self._queue.take(*self._batches):
            reasons = destination.write(events)
            with self._count_lock:
                for event, reason in zip(events, reasons, strict=True):
                    _count(event, reason)
        destination.close()

    def _warn(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            logger.warning("Payload log '%s': %s; dropped events are counted", self._to, text)


def _count(event: PayloadEvent, reason: str | None) -> None:
    if event.metrics is None:
        return
    if reason is None:
        event.metrics.payload_logged()
    else:
        event.metrics.payload_dropped(reason)


def _make_factory(
    settings: PayloadLogSettings, process_index: int, stopping: threading.Event, warn: Warn
) -> Callable[[], Destination]:
    """Return the function that creates the destination of one thread."""
    if settings.is_address:
        address = str(settings.to)
        return lambda: AddressDestination(CloudEventSender(address, stopping), warn)
    return lambda: FileDestination(RotatingFile.from_settings(settings, process_index), warn)
