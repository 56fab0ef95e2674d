"""How far one partition has been answered. Pure; offsets are Kafka's."""

from __future__ import annotations

from collections import deque


class OffsetTracker:
    """Requests end in any order, but a partition is committed up to one offset: the first that is not answered yet."""

    def __init__(self) -> None:
        self._taken: deque[int] = deque()
        self._done: set[int] = set()

    def take(self, offset: int) -> None:
        """A message was taken; offsets come in order."""
        self._taken.append(offset)

    def finish(self, offset: int) -> int | None:
        """A message was answered. Returns the offset to commit now; None = an earlier message is still open."""
        self._done.add(offset)
        last = None
        while self._taken and self._taken[0] in self._done:
            last = self._taken.popleft()
            self._done.discard(last)
        return None if last is None else last + 1
