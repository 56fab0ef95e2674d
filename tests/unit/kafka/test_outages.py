"""Intervals of log lines about unreachable brokers."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from mlserver.kafka.outages import MAX_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS, Outages


def test_growing_intervals(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outages = Outages("broker:1", lambda: now)
    times = []
    with caplog.at_level(logging.INFO, "mlserver.kafka"):
        for second in range(int(4 * MAX_INTERVAL_SECONDS)):
            now = float(second)
            before = len(caplog.records)
            outages.report("connection refused")
            times += [now] * (len(caplog.records) - before)
        outages.end()
        outages.report("connection refused")
    intervals = [later - earlier for earlier, later in pairwise(times)]
    assert intervals[:3] == [
        MIN_INTERVAL_SECONDS,
        2 * MIN_INTERVAL_SECONDS,
        4 * MIN_INTERVAL_SECONDS,
    ]
    assert max(intervals) <= MAX_INTERVAL_SECONDS
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0] == "Kafka: waiting for broker:1 (connection refused)"
    assert texts[-2:] == ["Kafka: broker:1 reachable again", texts[0]]
