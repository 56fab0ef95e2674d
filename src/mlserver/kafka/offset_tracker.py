"""Offset to commit for one partition."""

from __future__ import annotations

from collections import deque


class OffsetTracker:
    """Computes the offset up to which all messages are processed.

    Messages are processed in any order; Kafka commits one offset per partition, the first that is
    still open.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def add(self, offset: int) -> None:
        """Add a received message; offsets arrive in ascending order."""
        self._open.append(offset)

    def finish(self, offset: int) -> int | None:
        """Mark a message as processed; return the offset to commit, if it changes."""
        self._done.add(offset)
        last = None
        while self._open and self._open[0] in self._done:
            last = self._open.popleft()
            self._done.discard(last)
        return None if last is None else last + 1
