"""Progress bar of a scoring job: share, rate and time left, drawn only on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_BAR_WIDTH = 24
_REDRAW_INTERVAL = 0.1
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Counts finished and failed items, and draws the bar.

    Args:
        total: Items of the whole input.
        kept: Items that an earlier run has finished.
        stream: Where the bar is drawn, if it is a terminal.
    """

    def __init__(
        self, total: int, kept: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.kept, self.done, self.failed = total, kept, 0, 0
        self._stream, self._clock = stream, clock
        self._is_terminal = stream.isatty()
        self._started = clock()
        self._last_drawn = -_REDRAW_INTERVAL

    def add(self, done: int, failed: int) -> None:
        """Count items; `failed` are among `done`."""
        self.done += done
        self.failed += failed
        elapsed = self._clock() - self._started
        if self._is_terminal and elapsed - self._last_drawn >= _REDRAW_INTERVAL:
            self._last_drawn = elapsed
            self._stream.write(f"{_CLEAR_LINE}{self.format_bar(elapsed)}")
            self._stream.flush()

    def clear(self) -> None:
        """Remove the bar from the terminal."""
        if self._is_terminal:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    def format_bar(self, elapsed: float) -> str:
        """Return the bar as it is after `elapsed` seconds."""
        finished = self.kept + self.done
        share = finished / self.total if self.total else 1.0
        rate = self.done / elapsed if elapsed > 0 else 0.0
        remaining = (self.total - finished) / rate if rate else None
        bar = "#" * int(share * _BAR_WIDTH)
        failed = f"  {self.failed} failed" if self.failed else ""
        return (
            f"{share:4.0%} [{bar:<{_BAR_WIDTH}}] {finished}/{self.total}  {rate:.0f}/s"
            f"  {_format_duration(remaining)} left{failed}"
        )

    def format_summary(self) -> str:
        """Return the totals and the rate in one line."""
        elapsed = self._clock() - self._started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        kept = f", {self.kept} kept from before" if self.kept else ""
        succeeded = self.done - self.failed
        return f"{succeeded} answered, {self.failed} failed{kept}; {rate:.0f} per second"


def _format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
