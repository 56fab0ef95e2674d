"""What bounds a queue: its length, the time of its requests, and when to come back."""

from __future__ import annotations

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.errors import Overloaded


def test_full_is_full() -> None:
    limits = AdmissionPolicy(max_queue_size=2)
    limits.admit("m", 1, 0.1)
    with pytest.raises(
        Overloaded,
        match=r"Model m is overloaded: 2 requests wait already \(setting 'max_queue_size'\)",
    ):
        limits.admit("m", 2, 0.1)


def test_an_overload_is_the_callers_to_retry() -> None:
    with pytest.raises(Overloaded) as refusal:
        AdmissionPolicy(0).admit("m", 0, 0.0)

    assert (refusal.value.status_code, refusal.value.code) == (429, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("pace, seconds", [(0.0, 1.0), (0.001, 1.0), (0.05, 5.0), (10.0, 60.0)])
def test_when_to_come_back(pace: float, seconds: float) -> None:
    """As long as the queue needs to drain, within reason."""
    with pytest.raises(Overloaded) as refusal:
        AdmissionPolicy(100).admit("m", 100, pace)

    assert refusal.value.retry_after == pytest.approx(seconds)


@pytest.mark.parametrize(
    "own, asked, deadline",
    [
        (None, None, None),
        (2.0, None, 102.0),
        (None, 101.0, 101.0),
        (2.0, 101.0, 101.0),
        (2.0, 200.0, 102.0),
    ],
)
def test_the_earlier_deadline_counts(
    own: float | None, asked: float | None, deadline: float | None
) -> None:
    assert AdmissionPolicy(request_timeout=own).deadline(100.0, asked) == deadline
