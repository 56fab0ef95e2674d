"""Bounded dict for results whose keys clients choose."""

from __future__ import annotations

from typing import TypeVar

KeyT = TypeVar("KeyT", str, bytes)
ValueT = TypeVar("ValueT")


class BoundedCache(dict[KeyT, ValueT]):
    """Dict that is cleared when full and stores no key longer than `max_key_length`.

    `functools.lru_cache` bounds the number of keys but not their size: 1024 request targets of 64
    KiB would hold 64 MiB. Reading is `dict.get`, without a Python call.
    """

    def __init__(self, max_entries: int = 1024, max_key_length: int = 512) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_key_length = max_key_length

    def store(self, key: KeyT, value: ValueT) -> ValueT:
        """Store the value if the key is short enough, and return it."""
        if len(key) <= self._max_key_length:
            if len(self) >= self._max_entries:
                self.clear()
            self[key] = value
        return value
