"""The order of waiting requests and the rule that closes a batch. Pure: the clock is passed in, no loop, no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar


class QueueItem(Protocol):
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


W = TypeVar("W", bound=QueueItem)


class RequestQueue(Generic[W]):
    """Waiting requests, by priority and then by arrival."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[W]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, entry: W) -> None:
        # Priority 1 is the highest; 0 (not given) comes after all that are given.
        self._levels.setdefault(entry.priority or 2**31, deque()).append(entry)
        self._size += 1

    def remove(self, entry: W) -> bool:
        """Take one entry out of line; False if it is not in it (any more)."""
        level = self._levels.get(entry.priority or 2**31, ())
        if entry not in level:
            return False
        self._levels[entry.priority or 2**31].remove(entry)
        self._size -= 1
        self._drop_if_empty(entry)
        return True

    def take(self, policy: BatchPolicy, now: float) -> tuple[list[W], float]:
        """The next batch, or no entries and the seconds until there may be one.

        The first in line is always in the batch; those behind it join if they agree with it.
        """
        level = self._first_level()
        if level is None:
            return [], 0.0
        first = level[0]
        batch, passed = _agreeing(level, policy)
        wait = first.arrived + policy.max_wait - now
        if policy.max_wait and wait > 0 and first.rows and len(batch) < policy.max_requests:
            return [], wait
        if not passed:
            for _ in batch:
                level.popleft()
        else:
            chosen = set(map(id, batch))
            rest = [entry for entry in level if id(entry) not in chosen]
            level.clear()
            level.extend(rest)
        self._size -= len(batch)
        self._drop_if_empty(first)
        return batch, 0.0

    def _drop_if_empty(self, entry: W) -> None:
        """Priorities are the callers' choice: a level lasts no longer than somebody waits at it."""
        if not self._levels[entry.priority or 2**31]:
            del self._levels[entry.priority or 2**31]

    def _first_level(self) -> deque[W] | None:
        return self._levels[min(self._levels)] if self._levels else None


def _agreeing(level: deque[W], policy: BatchPolicy) -> tuple[list[W], int]:
    """The first in line and those behind it that may join it; how many were passed over to find them."""
    first = level[0]
    batch, rows, passed = [first], first.rows, 0
    if policy.max_requests <= 1 or not first.rows:
        return batch, 0
    for entry in islice(level, 1, None):
        if len(batch) >= policy.max_requests or passed > policy.max_requests:
            break
        if entry.rows and rows + entry.rows <= policy.max_rows and entry.key == first.key:
            batch.append(entry)
            rows += entry.rows
        else:
            passed += 1
    return batch, passed
