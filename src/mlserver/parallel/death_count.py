"""Deaths of a pool's workers: how many died recently, to decide whether a replacement must wait,
and which ones, for users.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Protocol

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


class EventSource(Protocol):
    """What is read of a pool."""

    exits: WorkerExits

    @property
    def has_stopped_forking(self) -> bool: ...


class ProcessEvents:
    """What has happened to worker processes since the start of the server.

    Attributes:
        deaths: Unexpected exits, by `exit_codes.EXIT_REASONS`.
        refused_forks: Pools whose workers are not forked any more.
    """

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.refused_forks = 0

    def add(self, pool: EventSource) -> None:
        """Add the events of one pool."""
        self.deaths.update(pool.exits.by_class)
        self.refused_forks += pool.has_stopped_forking

    def plus(self, pools: Iterable[EventSource]) -> ProcessEvents:
        """Return the sum of these events and those of the pools."""
        total = ProcessEvents()
        total.deaths.update(self.deaths)
        total.refused_forks = self.refused_forks
        for pool in pools:
            total.add(pool)
        return total


class WorkerExits:
    """Unexpected exits of a pool's workers.

    Attributes:
        count: Since the start of the pool.
        by_class: The same, by `exit_codes.EXIT_REASONS`.
        latest: The last `MAX_EXITS` ones, the oldest first: process id, reason, and the time in
            seconds since the epoch.
    """

    MAX_EXITS = 20

    def __init__(self) -> None:
        self.count = 0
        self.by_class: Counter[str] = Counter()
        self.latest: deque[dict[str, Any]] = deque(maxlen=self.MAX_EXITS)

    def add(self, pid: int, reason: str, exit_class: str) -> None:
        self.count += 1
        self.by_class[exit_class] += 1
        self.latest.append({"pid": pid, "reason": reason, "time": time.time()})
