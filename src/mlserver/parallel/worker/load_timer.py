"""How long a model's load took by itself, though several models load on one event loop.

Models are loaded together, and most block the loop while they read their files. Wall-clock time from start to end
would count the other models' loads as well, so the waits behind them are left out.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# Seconds without a step of any load after which the loop counts as having been free.
GAP = 0.02


class LoadTimer:
    """Measures the loads of one event loop.

    Args:
        now: The clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        # The stretch of time in which loads blocked the loop one right after the other.
        self.busy_since = self.busy_until = float("-inf")

    async def measure(self, load: Coroutine[Any, Any, T]) -> tuple[T, float]:
        """Run a load. Returns its result, and the seconds that it took without waiting behind other loads."""
        started = self.now()
        timed = _Timed(load, self)
        result = await timed
        return result, self.now() - started - timed.waited


class _Timed(Awaitable[T], Generic[T]):
    """A coroutine whose steps are timed.

    Attributes:
        waited: Seconds between its steps in which other loads blocked the loop until its next step.
    """

    def __init__(self, load: Coroutine[Any, Any, T], clock: LoadTimer) -> None:
        self._load = load
        self._clock = clock
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
                paused = self._clock.busy_until = self._clock.now()
            sent, error = None, None
            try:
                sent = yield awaited
            except BaseException as thrown:
                error = thrown

    def _begin_step(self, paused: float | None) -> None:
        clock, now = self._clock, self._clock.now()
        if now - clock.busy_until > GAP:
            clock.busy_since = now
        elif paused is not None and paused < clock.busy_until:
            self.waited += now - max(clock.busy_since, paused)
