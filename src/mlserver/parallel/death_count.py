"""Deaths of a pool's workers: how many died recently, to decide whether a replacement must wait,
and which ones, for users.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

STABLE_AFTER = 60.0  # seconds after which a death no longer counts


class ReplacementLoadFailed(Exception):
    """A replacement worker could not load a model of the pool; the cause has the reason."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(f"{key.partition('#')[0]}: {error!r}")
        self.key = key


class DeathCount:
    """Deaths within the last `STABLE_AFTER` seconds. Pure: the time is passed in.

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


class WorkerExits:
    """Unexpected exits of a pool's workers.

    Attributes:
        count: Since the start of the pool.
        latest: The last `MAX_EXITS` ones, the oldest first: process id, reason, and the time in
            seconds since the epoch.
    """

    MAX_EXITS = 20

    def __init__(self) -> None:
        self.count = 0
        self.latest: deque[dict[str, Any]] = deque(maxlen=self.MAX_EXITS)

    def add(self, pid: int, reason: str) -> None:
        self.count += 1
        self.latest.append({"pid": pid, "reason": reason, "time": time.time()})
