"""Recent errors: bounded, equal ones joined, sums of several processes."""

from __future__ import annotations

from mlserver.errors import MLServerError
from mlserver.metrics.recent_errors import (
    MAX_ERRORS,
    MAX_KINDS,
    MAX_MESSAGE,
    RecentErrors,
    merge_errors,
)


def test_equal_errors_are_joined() -> None:
    errors = RecentErrors()
    for number in range(3):
        errors.add(MLServerError("the same", 400), "POST /x", "wine", "1", f"id-{number}")
    (entry,) = errors.export()["errors"]
    assert entry["count"] == 3
    assert entry["request_id"] == "id-2"
    assert entry["first"] <= entry["last"]
    assert errors.export()["counts"] == {"400 MLServerError": 3}


def test_the_oldest_are_dropped() -> None:
    errors = RecentErrors()
    for number in range(MAX_ERRORS + 50):
        errors.add(MLServerError(f"number {number}", 400), "")
    entries = errors.export()["errors"]
    assert len(entries) == MAX_ERRORS
    assert entries[0]["message"] == "number 50"
    assert errors.export()["counts"] == {"400 MLServerError": MAX_ERRORS + 50}


def test_sizes_are_bounded() -> None:
    errors = RecentErrors()
    errors.add(MLServerError("x" * 100_000, 500), "", request_id="y" * 100_000)
    (entry,) = errors.export()["errors"]
    assert len(entry["message"]) == MAX_MESSAGE
    assert len(entry["request_id"]) < 1000
    for status in range(1000):
        errors.add(MLServerError("a", status), "")
    counts = errors.export()["counts"]
    assert len(counts) <= MAX_KINDS + 1
    assert sum(counts.values()) == 1001


def test_only_unexpected_errors_have_a_traceback() -> None:
    errors = RecentErrors()
    errors.add(MLServerError("expected"), "")
    try:
        raise ValueError("unexpected")
    except ValueError as error:
        errors.add(error, "")
    expected, unexpected = errors.export()["errors"]
    assert expected["traceback"] is None
    assert (unexpected["status"], unexpected["kind"]) == (500, "ValueError")
    assert "raise ValueError" in unexpected["traceback"]


def test_processes_are_merged_by_time() -> None:
    first, second = RecentErrors(), RecentErrors()
    first.add(MLServerError("older", 400), "")
    second.add(MLServerError("newer", 404), "")
    second.add(MLServerError("newest", 404), "")
    merged = merge_errors([first.export(), second.export()])
    times = [entry["last"] for entry in merged["errors"]]
    assert times == sorted(times, reverse=True)
    assert {entry["message"] for entry in merged["errors"]} == {"newest", "newer", "older"}
    assert merged["counts"] == {"400 MLServerError": 1, "404 MLServerError": 2}
