"""Log lines about unreachable brokers: the first at once, further ones with growing intervals."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from ..logging import get_logger

logger = get_logger().getChild("kafka")

MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 60.0, 3600.0  # between two lines of one outage
_REASON = re.compile(r"failed: (.*?) \(after")
_SUMMARY = "_ALL_BROKERS_DOWN"  # has no reason; follows an error with a reason


class LibraryLog:
    """Logger for librdkafka, level DEBUG: it writes 28 lines per second while a broker is down."""

    def log(self, level: int, message: str, *args: Any) -> None:
        logger.debug(message, *args)


class Outages:
    """Logs lost connections, reported by the threads of both clients.

    Args:
        servers: The brokers, for messages.
        clock: Returns seconds.
    """

    def __init__(self, servers: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._interval = 0.0

    def on_error(self, error: Any) -> None:
        """Report an error of librdkafka (its `error_cb`)."""
        if error.name() == _SUMMARY and self._interval:
            return
        self.report(read_reason(error))

    def report(self, reason: str) -> None:
        """Log an outage, at most once per interval."""
        with self._lock:
            now = self._clock()
            if self._interval and now < self._next_at:
                return
            self._interval = (
                min(2 * self._interval, MAX_INTERVAL_SECONDS)
                if self._interval
                else MIN_INTERVAL_SECONDS
            )
            self._next_at = now + self._interval
        logger.warning("Kafka: waiting for %s (%s)", self._servers, reason)

    def end(self) -> None:
        """Record that the brokers are reachable; the next outage is logged at once."""
        with self._lock:
            was_down, self._interval = bool(self._interval), 0.0
        if was_down:
            logger.info("Kafka: %s reachable again", self._servers)


def read_reason(error: Any) -> str:
    """Return the reason of a `KafkaError`; for a failed connection, the system's text."""
    text = str(error.str())
    match = _REASON.search(text)
    return match[1].lower() if match else text
