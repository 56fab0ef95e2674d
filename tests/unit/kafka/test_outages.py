"""How often the log says that the brokers are away."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from mlserver.kafka.outages import FIRST_PAUSE, LONGEST_PAUSE, Outages


def test_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outages = Outages("broker:1", lambda: now)
    times = []
    with caplog.at_level(logging.INFO, "mlserver.kafka"):
        for second in range(int(4 * LONGEST_PAUSE)):
            now = float(second)
            before = len(caplog.records)
            outages.report("connection refused")
            times += [now] * (len(caplog.records) - before)
        outages.over()
        outages.report("connection refused")
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) <= LONGEST_PAUSE
    texts = [record.getMessage() for record in caplog.records]
    assert texts[0] == "Kafka: waiting for broker:1 (connection refused)"
    assert texts[-2:] == ["Kafka: broker:1 can be reached", texts[0]]
