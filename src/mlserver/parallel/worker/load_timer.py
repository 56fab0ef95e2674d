"""Measures the duration of a model's load while several models load on one event loop.

Loads run concurrently, and most block the loop while they read files. The wall-clock time of one
load would include the others, so the time in which other loads block the loop is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# Seconds without a step of any load after which the loop counts as idle.
MAX_GAP = 0.02


class LoadTimer:
    """Measures the loads of one event loop.

    Args:
        now: Returns the time in seconds.

    Attributes:
        busy_since, busy_until: The last period in which loads blocked the loop without a gap.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.busy_since = self.busy_until = float("-inf")

    async def measure(self, load: Coroutine[Any, Any, T]) -> tuple[T, float]:
        """Run a load; return its result and its seconds without waits for other loads."""
        started = self.now()
        timed = _TimedLoad(load, self)
        result = await timed
        return result, self.now() - started - timed.waited


class _TimedLoad(Awaitable[T], Generic[T]):
    """A coroutine whose steps are timed.

    Attributes:
        waited: Seconds between its steps in which other loads blocked the loop until its next step.
    """

    def __init__(self, load: Coroutine[Any, Any, T], timer: LoadTimer) -> None:
        self._load = load
        self._timer = timer
        self.waited = 0.0

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._load.__await__()
        error: BaseException | None = None
        sent: Any = None
        paused: float | None = None
        while True:
            self._begin_step(paused)
            try:
                awaited = steps.send(sent) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                paused = self._timer.busy_until = self._timer.now()
            sent, error = None, None
            try:
                sent = yield awaited
            except BaseException as thrown:
                error = thrown

    def _begin_step(self, paused: float | None) -> None:
        timer, now = self._timer, self._timer.now()
        if now - timer.busy_until > MAX_GAP:
            timer.busy_since = now
        elif paused is not None and paused < timer.busy_until:
            self.waited += now - max(timer.busy_since, paused)
