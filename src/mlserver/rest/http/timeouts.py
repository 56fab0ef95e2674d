"""How long HTTP connections may stay in what they do. Knows no HTTP: a connection is whatever has `look()`.

No request sets a timer: `ConnectionTimeouts` looks at all connections a few times a second, and a connection only notes what it waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

from ...settings import Settings

LINGER = 2.0  # seconds that an early answer waits for a caller that is still sending


# Seconds that an idle connection gets, once the server takes no more connections, to bring one more request: a client
# may have sent it already, or be about to. It is answered with `connection: close`.
LAST_REQUEST = 1.0


class ConnectionState(IntEnum):
    """What a connection waits for."""

    IDLE = 0  # the caller's next request
    HEAD = 1  # the rest of a head
    BODY = 2  # the rest of a body
    ANSWER = 3  # us
    ENDING = 4  # the caller to read our last answer; what still comes is dropped


class ConnectionTimeouts:
    """The limits of one server's connections, and the clock that they share.

    Args:
        settings: For the time limits and `max_connections`.

    Attributes:
        is_ending: Whether each answer is the last one of its connection.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_connections = settings.max_connections
        self.now = 0.0
        self.is_ending = False
        self.reading = settings.body_timeout
        self._limits = {
            ConnectionState.IDLE: settings.keep_alive_timeout,
            ConnectionState.HEAD: settings.header_timeout,
            ConnectionState.BODY: settings.body_timeout,
            ConnectionState.ENDING: LINGER,
        }
        self.interval = min(1.0, *(limit / 4 for limit in self._limits.values()))
        self._connections: Callable[[], Iterable[Any]] = tuple
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connections: Callable[[], Iterable[Any]]) -> None:
        """Look at these connections from now on, until `stop`."""
        self._connections = connections
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def expired(self, phase: ConnectionState, since: float) -> bool:
        """Whether a connection has been in a phase for too long. `since` may be one interval too early."""
        limit = self._limits.get(phase)
        return limit is not None and self.now - since > limit + self.interval

    def close_idle(self, ending_since: float) -> None:
        """Close the connections that have brought no request for `LAST_REQUEST` seconds since the end began."""
        self.now = asyncio.get_running_loop().time()
        if self.now - ending_since < LAST_REQUEST:
            return
        for connection in list(self._connections()):
            connection.close_if_idle(self.now - LAST_REQUEST)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        for connection in list(self._connections()):
            connection.look()
        self._timer = loop.call_later(self.interval, self._look)
