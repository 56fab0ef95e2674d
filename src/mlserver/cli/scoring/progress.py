"""One line on a terminal that says how far a job is, how fast, and how long it will take. Off a terminal: nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 24
_INTERVAL = 0.1


class Progress:
    """Counts what is done.

    Args:
        total: Items of the whole job.
        before: Items that were done before this run.
        stream: Where the line is drawn; only if it is a terminal.
    """

    def __init__(
        self, total: int, before: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.before, self.done, self.failed = total, before, 0, 0
        self._stream, self._clock = stream, clock
        self._on = stream.isatty()
        self._started = clock()
        self._drawn = -_INTERVAL

    def add(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed
        now = self._clock() - self._started
        if self._on and now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._stream.write(f"\r\x1b[K{self.line(now)}")
            self._stream.flush()

    def end(self) -> None:
        """Remove the line."""
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def line(self, seconds: float) -> str:
        """The line after so many seconds."""
        finished = self.before + self.done
        share = finished / self.total if self.total else 1.0
        rate = self.done / seconds if seconds > 0 else 0.0
        remaining = (self.total - finished) / rate if rate else None
        bar = "#" * int(share * _WIDTH)
        failed = f"  {self.failed} failed" if self.failed else ""
        return f"{share:4.0%} [{bar:<{_WIDTH}}] {finished}/{self.total}  {rate:.0f}/s  {_clock_time(remaining)} left{failed}"

    def summary(self) -> str:
        """What was done, in one line."""
        seconds = self._clock() - self._started
        rate = self.done / seconds if seconds > 0 else 0.0
        kept = f", {self.before} kept from before" if self.before else ""
        return (
            f"{self.done - self.failed} answered, {self.failed} failed{kept}; {rate:.0f} per second"
        )


def _clock_time(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
