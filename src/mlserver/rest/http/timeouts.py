"""Timeouts of HTTP connections, by the state that a connection is in; not of requests.

No request sets a timer: `ConnectionTimeouts` checks all connections up to a few times a second, and
a connection only records its state and the time at which it entered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol

from ...settings import Settings

# Seconds that a connection stays open after an early response, while the client still sends.
LINGER = 2.0
# Seconds for one more request on an idle connection after the listener is closed: the client may
# have sent it already. Its response has `connection: close`.
LAST_REQUEST_WAIT = 1.0


class ConnectionState(IntEnum):
    """What a connection waits for."""

    IDLE = 0  # the next request
    HEAD = 1  # the rest of a head
    BODY = 2  # the rest of a body
    RESPONSE = 3  # the application's response
    CLOSING = 4  # the client to read the last response; what still arrives is discarded


class TimedConnection(Protocol):
    """The part of a connection that the timeouts use."""

    def check_timeouts(self) -> None: ...

    def close_if_idle(self, since: float) -> None: ...


class ConnectionTimeouts:
    """Time limits of the connections of one listener, and the clock that they share.

    Args:
        settings: Supplies the time limits and `max_connections`.

    Attributes:
        now: Time of the last check, on the event loop's clock.
        is_draining: Whether each response is the last one of its connection.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_connections = settings.max_connections
        self.now = 0.0
        self.is_draining = False
        self.read_timeout = settings.body_timeout
        self._limits = {
            ConnectionState.IDLE: settings.keep_alive_timeout,
            ConnectionState.HEAD: settings.header_timeout,
            ConnectionState.BODY: settings.body_timeout,
            ConnectionState.CLOSING: LINGER,
        }
        self.interval = min(1.0, *(limit / 4 for limit in self._limits.values()))
        self._get_connections: Callable[[], Iterable[TimedConnection]] = tuple
        self._timer: asyncio.TimerHandle | None = None

    def start(self, get_connections: Callable[[], Iterable[TimedConnection]]) -> None:
        """Check these connections periodically until `stop`."""
        self._get_connections = get_connections
        self._check_all()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def is_expired(self, state: ConnectionState, since: float) -> bool:
        """Return whether a connection has exceeded its state's limit.

        `since` is the time of a check, so up to one interval before the state began.
        """
        limit = self._limits.get(state)
        return limit is not None and self.now - since > limit + self.interval

    def close_idle(self, drain_began: float) -> None:
        """Close the connections without a request for `LAST_REQUEST_WAIT` seconds of the drain."""
        self.now = asyncio.get_running_loop().time()
        if self.now - drain_began < LAST_REQUEST_WAIT:
            return
        for connection in list(self._get_connections()):
            connection.close_if_idle(self.now - LAST_REQUEST_WAIT)

    def _check_all(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        for connection in list(self._get_connections()):
            connection.check_timeouts()
        self._timer = loop.call_later(self.interval, self._check_all)
