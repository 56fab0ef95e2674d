"""Admission: the size of the queue, the deadline of a request, and `retry_after`."""

from __future__ import annotations

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.errors import Overloaded


def test_a_full_queue_rejects() -> None:
    limits = AdmissionPolicy(max_queue_size=2)
    limits.admit("m", 1, 0.1)
    with pytest.raises(
        Overloaded,
        match=r"Model m is overloaded: 2 requests wait already \(setting 'max_queue_size'\)",
    ):
        limits.admit("m", 2, 0.1)


def test_overload_asks_the_client_to_retry() -> None:
    with pytest.raises(Overloaded) as rejection:
        AdmissionPolicy(0).admit("m", 0, 0.0)

    assert (rejection.value.status_code, rejection.value.code) == (429, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    "avg_seconds_per_request, seconds", [(0.0, 1.0), (0.001, 1.0), (0.05, 5.0), (10.0, 60.0)]
)
def test_retry_after(avg_seconds_per_request: float, seconds: float) -> None:
    """The time that the queue needs to drain, from 1 to 60 s."""
    with pytest.raises(Overloaded) as rejection:
        AdmissionPolicy(100).admit("m", 100, avg_seconds_per_request)

    assert rejection.value.retry_after == pytest.approx(seconds)


@pytest.mark.parametrize(
    "limit, requested, deadline",
    [
        (None, None, None),
        (2.0, None, 102.0),
        (None, 101.0, 101.0),
        (2.0, 101.0, 101.0),
        (2.0, 200.0, 102.0),
    ],
)
def test_the_earlier_deadline_counts(
    limit: float | None, requested: float | None, deadline: float | None
) -> None:
    assert AdmissionPolicy(request_timeout=limit).deadline(100.0, requested) == deadline
