"""Bounded cache: entries and lengths of keys have a limit."""

from __future__ import annotations

from mlserver.rest.bounded_cache import BoundedCache


def test_store_returns_the_value() -> None:
    cache: BoundedCache[str, int] = BoundedCache()
    assert cache.store("a", 1) == 1
    assert cache.get("a") == 1


def test_a_full_cache_is_cleared() -> None:
    cache: BoundedCache[str, int] = BoundedCache(max_entries=2)
    for number in range(3):
        cache.store(str(number), number)
    assert cache == {"2": 2}


def test_long_keys_are_not_stored() -> None:
    cache: BoundedCache[bytes, int] = BoundedCache(max_key_length=3)
    assert cache.store(b"long", 1) == 1
    assert not cache
