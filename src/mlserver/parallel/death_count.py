"""How many workers of a pool died recently, to decide whether a replacement must wait.

Pure: the time is passed in.
"""

from __future__ import annotations

from collections import deque

STABLE_AFTER = 60.0  # seconds after which a death no longer counts


class DeathCount:
    """Deaths within the last `STABLE_AFTER` seconds.

    Args:
        limit: Deaths that are replaced without a pause: one per worker of the pool.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Times of the most recent deaths; more than limit + 1 change nothing.
        self._times: deque[float] = deque(maxlen=limit + 1)

    def add(self, now: float) -> None:
        """Count a death, or a replacement that did not start."""
        self._times.append(now)

    def exceeds_limit(self, now: float) -> bool:
        """Whether more than `limit` deaths are recent."""
        while self._times and now - self._times[0] >= STABLE_AFTER:
            self._times.popleft()
        return len(self._times) > self._limit
