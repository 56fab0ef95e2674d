"""A memory with bounds."""

from __future__ import annotations

from mlserver.rest.bounded_cache import Known


def test_it_gives_back_what_it_keeps() -> None:
    known: Known[str, int] = Known()
    assert known.keep("a", 1) == 1
    assert known.get("a") == 1


def test_it_starts_anew_when_it_is_full() -> None:
    known: Known[str, int] = Known(most=2)
    for number in range(3):
        known.keep(str(number), number)
    assert known == {"2": 2}


def test_long_keys_are_not_kept() -> None:
    known: Known[bytes, int] = Known(longest=3)
    assert known.keep(b"long", 1) == 1
    assert not known
