"""The order of the request queue and the rule that closes a batch, at fixed times."""

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
class QueuedItem:
    name: str
    rows: int = 1
    key: str = "k"
    arrived: float = NOW
    priority: int = 0


def queue_of(entries: Iterable[QueuedItem]) -> RequestQueue[QueuedItem]:
    queue: RequestQueue[QueuedItem] = RequestQueue()
    for entry in entries:
        queue.push(entry)
    return queue


def take(queue: RequestQueue[QueuedItem], policy: BatchPolicy, now: float = NOW) -> str:
    batch, wait = queue.take(policy, now)
    assert bool(batch) or wait > 0 or not queue.size
    return "".join(entry.name for entry in batch)


def drain(queue: RequestQueue[QueuedItem], policy: BatchPolicy) -> list[str]:
    taken = []
    while queue.size:
        taken.append(take(queue, policy))
    return taken


@pytest.mark.parametrize(
    "policy, taken",
    [(BatchPolicy(), ["a", "b", "c"]), (BatchPolicy(2), ["ab", "c"]), (BatchPolicy(9), ["abc"])],
)
def test_max_requests(policy: BatchPolicy, taken: list[str]) -> None:
    assert drain(queue_of(map(QueuedItem, "abc")), policy) == taken


def test_an_empty_queue() -> None:
    queue = queue_of([])

    assert queue.take(BatchPolicy(9), NOW) == ([], 0.0)
    assert not queue.remove(QueuedItem("a"))


def test_only_equal_keys_are_joined() -> None:
    queue = queue_of(
        [
            QueuedItem("a"),
            QueuedItem("x", key="other"),
            QueuedItem("b"),
            QueuedItem("y", key="other"),
            QueuedItem("c"),
        ]
    )

    assert drain(queue, BatchPolicy(9)) == ["abc", "xy"]


def test_requests_without_rows_run_alone() -> None:
    queue = queue_of(
        [
            QueuedItem("a", rows=0),
            QueuedItem("b", rows=0),
            QueuedItem("c"),
            QueuedItem("d", rows=0),
            QueuedItem("e"),
        ]
    )

    assert drain(queue, BatchPolicy(9)) == ["a", "b", "ce", "d"]


def test_max_rows() -> None:
    queue = queue_of(
        [
            QueuedItem("a", 3),
            QueuedItem("b", 3),
            QueuedItem("c", 2),
            QueuedItem("d", 9),
            QueuedItem("e", 1),
        ]
    )

    assert drain(queue, BatchPolicy(9, max_rows=5)) == ["ac", "be", "d"]


def test_the_search_for_equal_keys_is_bounded() -> None:
    queue = queue_of(
        [QueuedItem("a"), *(QueuedItem("x", key="other") for _ in range(9)), QueuedItem("b")]
    )

    assert take(queue, BatchPolicy(4)) == "a"
    assert queue.size == 10


@pytest.mark.parametrize("others, taken", [(4, "ab"), (5, "a")])
def test_a_request_behind_more_than_a_batch_of_others_is_not_sought(
    others: int, taken: str
) -> None:
    skipped = [QueuedItem("x", key="other") for _ in range(others)]
    queue = queue_of([QueuedItem("a"), *skipped, QueuedItem("b")])

    assert take(queue, BatchPolicy(4)) == taken


# -- priorities --


def test_lower_numbers_first_and_no_priority_last() -> None:
    queue = queue_of(
        [
            QueuedItem("z"),
            QueuedItem("c", priority=3),
            QueuedItem("a", priority=1),
            QueuedItem("b", priority=1),
        ]
    )

    assert drain(queue, BatchPolicy()) == ["a", "b", "c", "z"]


def test_a_batch_has_one_priority() -> None:
    queue = queue_of(
        [QueuedItem("z"), QueuedItem("a", priority=1), QueuedItem("y"), QueuedItem("b", priority=1)]
    )

    assert drain(queue, BatchPolicy(9)) == ["ab", "zy"]


def test_remove() -> None:
    entries = [QueuedItem("a"), QueuedItem("b", priority=1), QueuedItem("c")]
    queue = queue_of(entries)

    assert queue.remove(entries[1])
    assert not queue.remove(entries[1])
    assert not queue.remove(QueuedItem("a"))
    assert queue.size == 2
    assert drain(queue, BatchPolicy()) == ["a", "c"]
    assert not queue.remove(entries[0])


def test_many_priorities() -> None:
    """Clients choose priorities: empty levels are removed, and the order holds."""
    queue = queue_of(
        QueuedItem(f"{priority};", priority=priority) for priority in range(300, 0, -1)
    )
    taken = drain(queue, BatchPolicy())
    queue.push(QueuedItem("z"))

    assert taken == [f"{priority};" for priority in range(1, 301)]
    assert drain(queue, BatchPolicy()) == ["z"]


# -- waiting for others --

WAITS = BatchPolicy(3, max_wait=0.5)


def test_a_batch_waits_max_wait_from_the_arrival_of_its_first_request() -> None:
    queue = queue_of([QueuedItem("a", arrived=NOW - 0.2), QueuedItem("b", arrived=NOW)])

    batch, wait = queue.take(WAITS, NOW)
    assert batch == []
    assert wait == pytest.approx(0.3)
    assert queue.size == 2
    assert take(queue, WAITS, NOW + 0.3 + 1e-9) == "ab"


@pytest.mark.parametrize(
    "entries, taken",
    [
        ([QueuedItem("a"), QueuedItem("b"), QueuedItem("c"), QueuedItem("d")], "abc"),  # full
        ([QueuedItem("a", rows=0), QueuedItem("b")], "a"),  # never joined
        ([QueuedItem("a", arrived=NOW - 0.5), QueuedItem("b")], "ab"),  # waited long enough
        ([QueuedItem("a", arrived=NOW - 10)], "a"),
    ],
)
def test_a_batch_that_cannot_grow_does_not_wait(entries: list[QueuedItem], taken: str) -> None:
    assert take(queue_of(entries), WAITS) == taken


@given(
    st.lists(
        st.builds(
            QueuedItem,
            name=st.just("x"),
            rows=st.integers(0, 6),
            key=st.sampled_from("kl"),
            priority=st.integers(0, 3),
        )
    ),
    st.integers(1, 4),
    st.integers(1, 10),
)
def test_every_request_is_taken_once_and_in_order(
    entries: list[QueuedItem], size: int, rows: int
) -> None:
    queue = queue_of(entries)
    policy = BatchPolicy(size, max_rows=rows)
    taken: list[QueuedItem] = []
    while queue.size:
        batch, _ = queue.take(policy, NOW)
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or sum(entry.rows for entry in batch) <= rows
        assert len(batch) == 1 or all(entry.rows for entry in batch)
        assert len({(entry.key, entry.priority) for entry in batch}) == 1
        waiting = [entry for entry in entries if entry not in taken]
        assert batch[0] is min(waiting, key=lambda entry: entry.priority or math.inf)
        taken.extend(batch)

    assert sorted(map(id, taken)) == sorted(map(id, entries))
