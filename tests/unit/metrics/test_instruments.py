"""Instruments: buckets, sums, and removal of series."""

from __future__ import annotations

import math

import pytest

from mlserver.metrics.instruments import DEFAULT_BUCKETS, Counter, Gauge, Histogram, Summary


@pytest.mark.parametrize("value", [0.0, 0.005, 0.0051, 1.0, 10.0, 11.0, -1.0, math.inf])
def test_a_histogram_counts_as_prometheus_client_does(value: float) -> None:
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("h", "x", registry=registry)
    theirs.observe(value)
    ours = Histogram("h", "x", ())
    ours.observe((), value)
    (family,) = registry.collect()
    expected = [
        (each.name, each.labels, each.value)
        for each in family.samples
        if not each.name.endswith("_created")
    ]
    assert [(each.name, each.labels, each.value) for each in ours.family().samples] == expected


def test_not_a_number_is_above_all_bounds() -> None:
    histogram = Histogram("h", "x", ())
    histogram.observe((), math.nan)
    samples = {
        each.labels.get("le"): each.value
        for each in histogram.family().samples
        if "le" in each.labels
    }
    assert samples["+Inf"] == 1
    assert sum(samples.values()) == 1
    assert len(samples) == len(DEFAULT_BUCKETS) + 1


@pytest.mark.parametrize("metric", [Counter("m", "x", ("a",)), Gauge("m", "x", ("a",))])
def test_numbers(metric: Counter | Gauge) -> None:
    metric.add(("1",))
    metric.add(("1",), 2)
    metric.add(("2",))
    metric.remove(("2",))
    metric.remove(("none",))
    assert [(each.labels, each.value) for each in metric.family().samples] == [({"a": "1"}, 3)]


def test_a_summary() -> None:
    summary = Summary("s", "x", ("a",))
    summary.observe(("1",), 2)
    summary.observe(("1",), 3)
    assert [(each.name, each.value) for each in summary.family().samples] == [
        ("s_count", 2),
        ("s_sum", 5),
    ]
    summary.remove(("1",))
    assert summary.family().samples == []
