"""The order of waiting requests and the rule that closes a batch. Pure: the clock is passed in, no loop, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


class Waiting(Protocol):
    """What the rules need to know of a waiting request."""

    @property
    def rows(self) -> int: ...

    @property
    def key(self) -> Any: ...

    @property
    def arrived(self) -> float: ...

    @property
    def priority(self) -> int: ...


@dataclass(frozen=True)
class BatchPolicy:
    """When a batch is closed.

    Attributes:
        max_requests: Requests in one batch at most; 1 = no batching.
        max_wait: Seconds that the first request of a batch may wait for others while the model is idle. 0 = it is sent
            on at once, and what arrives while the model is busy is joined.
        max_rows: Rows in one batch at most; a larger request goes alone.
    """

    max_requests: int = 1
    max_wait: float = 0.0
    max_rows: int = 8192


class WaitingLine[W: Waiting]:
    """Waiting requests, by priority and then by arrival. Removal is by mark: see `Scheduler`."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[W]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[W]:
        for level in sorted(self._levels):
            yield from self._levels[level]

    def push(self, entry: W) -> None:
        # Priority 1 is the highest; 0 (not given) comes after all that are given.
        self._levels.setdefault(entry.priority or 2**31, deque()).append(entry)
        self._size += 1

    def remove(self, entry: W) -> None:
        level = self._levels.get(entry.priority or 2**31)
        if level is not None and entry in level:
            level.remove(entry)
            self._size -= 1

    def take(self, policy: BatchPolicy, now: float) -> tuple[list[W], float]:
        """The next batch, or no entries and the seconds until there may be one.

        The first in line is always in the batch; those behind it join if they agree with it.
        """
        level = next((self._levels[key] for key in sorted(self._levels) if self._levels[key]), None)
        if level is None:
            return [], 0.0
        first = level[0]
        if policy.max_requests <= 1 or not first.rows:
            self._size -= 1
            return [level.popleft()], 0.0
        batch, kept, rows = [], [], 0
        while level and len(batch) < policy.max_requests and len(kept) <= policy.max_requests:
            entry = level.popleft()
            fits = entry.rows and (not batch or (rows + entry.rows <= policy.max_rows and entry.key == first.key))
            if fits:
                batch.append(entry)
                rows += entry.rows
            else:
                kept.append(entry)
        level.extendleft(reversed(kept))
        wait = first.arrived + policy.max_wait - now
        if policy.max_wait and wait > 0 and len(batch) < policy.max_requests:
            level.extendleft(reversed(batch)) if not kept else self._restore(level, batch, kept)
            return [], wait
        self._size -= len(batch)
        return batch, 0.0

    @staticmethod
    def _restore(level: deque[W], batch: list[W], kept: list[W]) -> None:
        """Put back what was taken and what was passed over, in the order of arrival."""
        for _ in kept:
            level.popleft()
        level.extendleft(sorted(batch + kept, key=lambda entry: entry.arrived, reverse=True))
