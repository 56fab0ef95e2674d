"""One connection between the server and a worker: frames over a socket pair, in order, on an event loop.

Both ends use it. It knows frames and sockets, not what the frames mean.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from .protocol import Frame, FrameError, FrameReader, encode

HIGH_WATER = 8 * 1024 * 1024


class FramedConnection(asyncio.BufferedProtocol):
    """Sends and receives frames. Made by `open_channel`.

    Args:
        on_frame: Called with each frame that arrives, on the loop.
        on_closed: Called once when the connection ends, with the reason or None.
    """

    def __init__(
        self, on_frame: Callable[[Frame], None], on_closed: Callable[[Exception | None], None]
    ) -> None:
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, frame: Frame) -> None:
        """Write a frame; dropped if the connection is closed (whoever waits for its answer is told by `on_closed`)."""
        if self._transport is None or self._transport.is_closing():
            return
        for part in encode(frame):
            self._transport.write(part)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- asyncio's callbacks --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._reader.filled(nbytes)
        except FrameError as error:
            self._on_closed(error)
            self._on_closed = _ignore
            self.close()
            return
        for frame in frames:
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        told = self._on_closed
        # Both ends refer to each other, so the collector alone would find them, and it seldom looks: let go of what is large.
        self._on_frame, self._on_closed, self._reader, self._transport = (
            _drop,
            _ignore,
            FrameReader(0),
            None,
        )
        told(exc)


def _ignore(reason: Exception | None) -> None:
    """The end was told already."""


def _drop(frame: Frame) -> None:
    """Nobody reads any more."""


async def open_channel(
    end: socket.socket,
    on_frame: Callable[[Frame], None],
    on_closed: Callable[[Exception | None], None],
) -> FramedConnection:
    """A channel over one end of a connected socket pair."""
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(
        lambda: FramedConnection(on_frame, on_closed), sock=end
    )
    return channel
