"""What was worked out before: callers ask for few things, and ask for them again and again."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K", str, bytes)
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """A memory that strangers cannot fill: it starts anew when it is full, and long keys are not kept."""

    def __init__(self, most: int = 1024, longest: int = 512) -> None:
        super().__init__()
        self._most = most
        self._longest = longest

    def keep(self, key: K, value: V) -> V:
        """Remember the value, which is given back."""
        if len(key) <= self._longest:
            if len(self) >= self._most:
                self.clear()
            self[key] = value
        return value
