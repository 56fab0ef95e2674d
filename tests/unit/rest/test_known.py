"""A memory with bounds."""

from __future__ import annotations

from mlserver.rest.bounded_cache import BoundedCache


def test_it_gives_back_what_it_keeps() -> None:
    known: BoundedCache[str, int] = BoundedCache()
    assert known.keep("a", 1) == 1
    assert known.get("a") == 1


def test_it_starts_anew_when_it_is_full() -> None:
    known: BoundedCache[str, int] = BoundedCache(most=2)
    for number in range(3):
        known.keep(str(number), number)
    assert known == {"2": 2}


def test_long_keys_are_not_kept() -> None:
    known: BoundedCache[bytes, int] = BoundedCache(longest=3)
    assert known.keep(b"long", 1) == 1
    assert not known
