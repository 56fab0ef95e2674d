"""A connection between two processes: frames over a socket pair, in order, on an event loop.

Both ends use it. It does not interpret the frames.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from .protocol import Frame, FrameError, FrameReader, encode

# Unsent bytes of a connection above which its peer counts as not reading, until a quarter is left.
HIGH_WATER = 8 * 1024 * 1024


class FramedConnection(asyncio.BufferedProtocol):
    """Sends and receives frames. Created by `open_connection`.

    Args:
        on_frame: Called on the loop with each frame that arrives.
        on_closed: Called once when the connection ends, with the reason or None.

    Attributes:
        is_backed_up: Whether more than `HIGH_WATER` bytes wait for the peer to read. `send` does
            not look at it: senders of data that clients may repeat without limit await
            `wait_writable` first.
    """

    def __init__(
        self, on_frame: Callable[[Frame], None], on_closed: Callable[[Exception | None], None]
    ) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.is_backed_up = False
        self._writable = asyncio.Event()
        self._writable.set()

    async def wait_writable(self) -> None:
        """Return when the peer has read most of what waits for it, or the connection is closed."""
        await self._writable.wait()

    def send(self, frame: Frame) -> None:
        """Write a frame; it is dropped if the connection is closed (see `on_closed`).

        Raises:
            MLServerError: the frame cannot be serialized.
        """
        if self._transport is None or self._transport.is_closing():
            return
        for part in encode(frame):
            self._transport.write(part)

    def close(self) -> None:
        """Close after what is in the buffer has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: the peer may never read what is in the buffer."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's callbacks --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def pause_writing(self) -> None:
        self.is_backed_up = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.is_backed_up = False
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._reader.filled(nbytes)
        except FrameError as error:
            self._on_closed(error)
            self._on_closed = _ignore_close
            self.close()
            return
        for frame in frames:
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        on_closed = self._on_closed
        # Break the reference cycle with the owner now; otherwise large buffers live until the next
        # full collection.
        self._on_frame, self._on_closed = _ignore_frame, _ignore_close
        self._reader, self._transport = FrameReader(0), None
        self.resume_writing()
        on_closed(exc)


def _ignore_close(reason: Exception | None) -> None:
    """Replaces `on_closed` once that was called."""


def _ignore_frame(frame: Frame) -> None:
    """Replaces `on_frame` once the connection is closed."""


async def open_connection(
    end: socket.socket,
    on_frame: Callable[[Frame], None],
    on_closed: Callable[[Exception | None], None],
) -> FramedConnection:
    """Return a connection over one end of a connected socket pair."""
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: FramedConnection(on_frame, on_closed), sock=end
    )
    return connection
