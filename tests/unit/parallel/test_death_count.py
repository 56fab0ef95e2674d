"""Deaths of workers: which ones delay a replacement, with the time passed in."""

from __future__ import annotations

import pytest

from mlserver.parallel.death_count import STABLE_AFTER, DeathCount


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_one_death_per_worker_delays_nothing_and_the_next_one_does(workers: int) -> None:
    deaths = DeathCount(workers)
    for second in range(workers):
        deaths.add(second)
        assert not deaths.exceeds_limit(second)
    deaths.add(workers)
    assert deaths.exceeds_limit(workers)


def test_old_deaths_are_forgotten() -> None:
    deaths = DeathCount(1)
    for time in (0.0, 1.0):
        deaths.add(time)
    assert deaths.exceeds_limit(STABLE_AFTER - 0.1)
    assert not deaths.exceeds_limit(STABLE_AFTER)


def test_a_death_a_minute_never_delays() -> None:
    deaths = DeathCount(1)
    for minute in range(100):
        now = minute * STABLE_AFTER
        deaths.add(now)
        assert not deaths.exceeds_limit(now)


def test_many_deaths_at_once_count_until_the_last_ones_are_old() -> None:
    deaths = DeathCount(2)
    for _ in range(1000):
        deaths.add(10.0)
    assert deaths.exceeds_limit(10.0 + STABLE_AFTER - 1)
    assert not deaths.exceeds_limit(10.0 + STABLE_AFTER)
