"""The order of the waiting line and the rule that closes a batch, by a clock that stands still."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.batching.queue import BatchPolicy, RequestQueue

NOW = 1000.0


@dataclass(eq=False, frozen=True)
class Waiting:
    name: str
    rows: int = 1
    key: str = "k"
    arrived: float = NOW
    priority: int = 0


def line_of(entries: Iterable[Waiting]) -> RequestQueue[Waiting]:
    line: RequestQueue[Waiting] = RequestQueue()
    for entry in entries:
        line.push(entry)
    return line


def take(line: RequestQueue[Waiting], policy: BatchPolicy, now: float = NOW) -> str:
    batch, wait = line.take(policy, now)
    assert bool(batch) or wait > 0 or not line.size
    return "".join(entry.name for entry in batch)


def drain(line: RequestQueue[Waiting], policy: BatchPolicy) -> list[str]:
    taken = []
    while line.size:
        taken.append(take(line, policy))
    return taken


@pytest.mark.parametrize(
    "policy, taken",
    [(BatchPolicy(), ["a", "b", "c"]), (BatchPolicy(2), ["ab", "c"]), (BatchPolicy(9), ["abc"])],
)
def test_at_most_so_many_requests(policy: BatchPolicy, taken: list[str]) -> None:
    assert drain(line_of(map(Waiting, "abc")), policy) == taken


def test_an_empty_line() -> None:
    line = line_of([])

    assert line.take(BatchPolicy(9), NOW) == ([], 0.0)
    assert not line.remove(Waiting("a"))


def test_only_those_that_agree() -> None:
    line = line_of(
        [
            Waiting("a"),
            Waiting("x", key="other"),
            Waiting("b"),
            Waiting("y", key="other"),
            Waiting("c"),
        ]
    )

    assert drain(line, BatchPolicy(9)) == ["abc", "xy"]


def test_those_without_rows_go_alone() -> None:
    line = line_of(
        [
            Waiting("a", rows=0),
            Waiting("b", rows=0),
            Waiting("c"),
            Waiting("d", rows=0),
            Waiting("e"),
        ]
    )

    assert drain(line, BatchPolicy(9)) == ["a", "b", "ce", "d"]


def test_at_most_so_many_rows() -> None:
    line = line_of(
        [Waiting("a", 3), Waiting("b", 3), Waiting("c", 2), Waiting("d", 9), Waiting("e", 1)]
    )

    assert drain(line, BatchPolicy(9, max_rows=5)) == ["ac", "be", "d"]


def test_the_search_for_those_that_agree_is_bounded() -> None:
    line = line_of([Waiting("a"), *(Waiting("x", key="other") for _ in range(9)), Waiting("b")])

    assert take(line, BatchPolicy(4)) == "a"
    assert line.size == 10


# -- priorities --


def test_lower_numbers_first_and_none_last() -> None:
    line = line_of(
        [Waiting("z"), Waiting("c", priority=3), Waiting("a", priority=1), Waiting("b", priority=1)]
    )

    assert drain(line, BatchPolicy()) == ["a", "b", "c", "z"]


def test_batches_keep_to_one_priority() -> None:
    line = line_of([Waiting("z"), Waiting("a", priority=1), Waiting("y"), Waiting("b", priority=1)])

    assert drain(line, BatchPolicy(9)) == ["ab", "zy"]


def test_leaving_the_line() -> None:
    entries = [Waiting("a"), Waiting("b", priority=1), Waiting("c")]
    line = line_of(entries)

    assert line.remove(entries[1])
    assert not line.remove(entries[1])
    assert not line.remove(Waiting("a"))
    assert line.size == 2
    assert drain(line, BatchPolicy()) == ["a", "c"]
    assert not line.remove(entries[0])


def test_many_priorities_leave_nothing_behind() -> None:
    """Callers choose them; see that the line costs the same after a million of them (here: that order holds)."""
    line = line_of(Waiting(f"{priority};", priority=priority) for priority in range(300, 0, -1))
    taken = drain(line, BatchPolicy())
    line.push(Waiting("z"))

    assert taken == [f"{priority};" for priority in range(1, 301)]
    assert drain(line, BatchPolicy()) == ["z"]


# -- waiting for others --

WAITS = BatchPolicy(3, max_wait=0.5)


def test_a_batch_waits_for_its_first_member() -> None:
    line = line_of([Waiting("a", arrived=NOW - 0.2), Waiting("b", arrived=NOW)])

    batch, wait = line.take(WAITS, NOW)
    assert batch == []
    assert wait == pytest.approx(0.3)
    assert line.size == 2
    assert take(line, WAITS, NOW + 0.3 + 1e-9) == "ab"


@pytest.mark.parametrize(
    "entries, taken",
    [
        ([Waiting("a"), Waiting("b"), Waiting("c"), Waiting("d")], "abc"),  # full
        ([Waiting("a", rows=0), Waiting("b")], "a"),  # never joined
        ([Waiting("a", arrived=NOW - 0.5), Waiting("b")], "ab"),  # waited long enough
        ([Waiting("a", arrived=NOW - 10)], "a"),
    ],
)
def test_nobody_waits_in_vain(entries: list[Waiting], taken: str) -> None:
    assert take(line_of(entries), WAITS) == taken


@given(
    st.lists(
        st.builds(
            Waiting,
            name=st.just("x"),
            rows=st.integers(0, 6),
            key=st.sampled_from("kl"),
            priority=st.integers(0, 3),
        )
    ),
    st.integers(1, 4),
    st.integers(1, 10),
)
def test_every_request_is_taken_once_and_in_turn(
    entries: list[Waiting], size: int, rows: int
) -> None:
    line = line_of(entries)
    policy = BatchPolicy(size, max_rows=rows)
    taken: list[Waiting] = []
    while line.size:
        batch, _ = line.take(policy, NOW)
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or sum(entry.rows for entry in batch) <= rows
        assert len(batch) == 1 or all(entry.rows for entry in batch)
        assert len({(entry.key, entry.priority) for entry in batch}) == 1
        waiting = [entry for entry in entries if entry not in taken]
        assert batch[0] is min(waiting, key=lambda entry: entry.priority or math.inf)
        taken.extend(batch)

    assert sorted(map(id, taken)) == sorted(map(id, entries))
