"""Back-pressure of one connection: pauses reading from the transport, and waits while its write
buffer is full.
"""

from __future__ import annotations

import asyncio

HIGH_WATER = 64 * 1024  # bytes of a request body that are buffered before reading is paused


class FlowControl:
    """State of both directions of a transport.

    Attributes:
        transport: The transport.
        is_read_paused: Whether this server has stopped reading.
        is_write_paused: Whether the transport has called `pause_writing`.
    """

    __slots__ = ("_writable", "is_read_paused", "is_write_paused", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._writable: asyncio.Event | None = None  # created when writing is paused first
        self.is_read_paused = False
        self.is_write_paused = False

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
