"""The request queue of one model and the rule that closes a batch.

Pure: the clock is passed in, no event loop, no I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

# Level of requests without a priority: after all that have one.
_NO_PRIORITY = 2**31


class QueueItem(Protocol):
    """What the queue reads of a request."""

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
        max_requests: Requests per batch at most; 1 = no batching.
        max_wait: Seconds that the first request of a batch waits for others while the model is
            idle. 0 = a request is sent at once to an idle model, and requests that arrive while the
            model is busy are joined.
        max_rows: Rows per batch at most; a larger request runs alone.
    """

    max_requests: int = 1
    max_wait: float = 0.0
    max_rows: int = 8192


ItemT = TypeVar("ItemT", bound=QueueItem)


class RequestQueue(Generic[ItemT]):
    """Requests in the order of their priority (1 is the highest), then of their arrival.

    Attributes:
        size: Requests in the queue.
    """

    def __init__(self) -> None:
        self._levels: dict[int, deque[ItemT]] = {}
        self.size = 0

    def push(self, entry: ItemT) -> None:
        self._levels.setdefault(entry.priority or _NO_PRIORITY, deque()).append(entry)
        self.size += 1

    def remove(self, entry: ItemT) -> bool:
        """Remove a request. Returns False if it is not in the queue."""
        level = self._levels.get(entry.priority or _NO_PRIORITY)
        if level is None or entry not in level:
            return False
        level.remove(entry)
        self.size -= 1
        self._drop_if_empty(entry)
        return True

    def take(self, policy: BatchPolicy, now: float) -> tuple[list[ItemT], float]:
        """Remove and return the next batch; or return an empty one and the seconds until it closes.

        A batch is the first request of the queue and those behind it that can be joined with it.
        """
        level = self._first_level()
        if level is None:
            return [], 0.0
        first = level[0]
        batch, skipped = _select_batch(level, policy)
        wait = first.arrived + policy.max_wait - now
        if policy.max_wait and wait > 0 and first.rows and len(batch) < policy.max_requests:
            return [], wait
        if not skipped:
            for _ in batch:
                level.popleft()
        else:
            selected = set(map(id, batch))
            remaining = [entry for entry in level if id(entry) not in selected]
            level.clear()
            level.extend(remaining)
        self.size -= len(batch)
        self._drop_if_empty(first)
        return batch, 0.0

    def _drop_if_empty(self, entry: ItemT) -> None:
        """Remove the level of an entry if it is empty.

        Clients choose priorities, so empty levels would accumulate.
        """
        priority = entry.priority or _NO_PRIORITY
        if not self._levels[priority]:
            del self._levels[priority]

    def _first_level(self) -> deque[ItemT] | None:
        return self._levels[min(self._levels)] if self._levels else None


def _select_batch(level: deque[ItemT], policy: BatchPolicy) -> tuple[list[ItemT], int]:
    """Return the first request with those that join it, and how many were skipped in between.

    At most `max_requests` + 1 requests are skipped, which bounds the search in a long queue of
    unequal requests.
    """
    first = level[0]
    batch, rows, skipped = [first], first.rows, 0
    if policy.max_requests <= 1 or not first.rows:
        return batch, 0
    for entry in islice(level, 1, None):
        if len(batch) >= policy.max_requests or skipped > policy.max_requests:
            break
        if entry.rows and rows + entry.rows <= policy.max_rows and entry.key == first.key:
            batch.append(entry)
            rows += entry.rows
        else:
            skipped += 1
    return batch, skipped
