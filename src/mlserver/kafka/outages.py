"""What the log says while the brokers cannot be reached: once at first, then after growing pauses."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from ..logging import get_logger

logger = get_logger().getChild("kafka")

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds between two lines that say the same
_REASON = re.compile(r"failed: (.*?) \(after")
_SUMMARY = "_ALL_BROKERS_DOWN"  # has no reason; comes after the error that has


class LibraryLog:
    """A logger for librdkafka: it writes some 28 lines per second while a broker is away, so they are for DEBUG only."""

    def log(self, level: int, message: str, *args: Any) -> None:
        logger.debug(message, *args)


class Outages:
    """Reports of lost connections, from the threads of both clients.

    Args:
        servers: The brokers, for messages.
        clock: Gives seconds.
    """

    def __init__(self, servers: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self._pause = 0.0

    def on_error(self, error: Any) -> None:
        """Report an error of librdkafka, as its `error_cb`."""
        if error.name() == _SUMMARY and self._pause:
            return
        self.report(reason_of(error))

    def report(self, reason: str) -> None:
        """Say what the server waits for, unless that was said a short while ago."""
        with self._lock:
            now = self._clock()
            if self._pause and now < self._next:
                return
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
            self._next = now + self._pause
        logger.warning("Kafka: waiting for %s (%s)", self._servers, reason)

    def over(self) -> None:
        """The brokers answer: the next outage is reported at once."""
        with self._lock:
            was_out, self._pause = bool(self._pause), 0.0
        if was_out:
            logger.info("Kafka: %s can be reached", self._servers)


def reason_of(error: Any) -> str:
    """The reason of a `KafkaError` in a few words: of a failed connection, what the system said."""
    text = str(error.str())
    found = _REASON.search(text)
    return found[1].lower() if found else text
