"""Back-pressure of one connection: pauses reading from the transport, and waits while its write
buffer is full.
"""

from __future__ import annotations

import asyncio

HIGH_WATER = 64 * 1024  # bytes of a request body that are buffered before reading is paused
# Bytes of a response that a client has to read per `body_timeout`, unless less is left.
MIN_BYTES_READ = 16 * 1024


class FlowControl:
    """State of both directions of a transport.

    Attributes:
        transport: The transport.
        is_read_paused: Whether this server has stopped reading.
        is_write_paused: Whether the transport has called `pause_writing`.
    """

    __slots__ = (
        "_unread",
        "_unread_since",
        "_writable",
        "is_read_paused",
        "is_write_paused",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._writable: asyncio.Event | None = None  # created when writing is paused first
        self.is_read_paused = False
        self.is_write_paused = False
        # Bytes of responses that the client had not read at the last check, and since when.
        self._unread, self._unread_since = 0, 0.0

    def pause_reading(self) -> None:
        if not self.is_read_paused:
            self.is_read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_read_paused:
            self.is_read_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Make `drain` wait. The transport's buffer has reached its high-water mark."""
        self.is_write_paused = True
        if self._writable is None:
            self._writable = asyncio.Event()
        self._writable.clear()

    def resume_writing(self) -> None:
        """End `drain`. The transport's buffer has reached its low-water mark, or the connection is
        lost.
        """
        self.is_write_paused = False
        if self._writable is not None:
            self._writable.set()

    async def drain(self) -> None:
        """Wait until the transport accepts more."""
        if self._writable is not None:
            await self._writable.wait()

    def check_client_reads(self, now: float, limit: float) -> None:
        """Abort the connection if the client has not read responses for `limit` seconds."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread <= self._unread - MIN_BYTES_READ or unread > self._unread:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > limit:
            self.transport.abort()
