"""Counts of one model version: as another process sends them, and their sums."""

from __future__ import annotations

import msgspec

from mlserver.metrics.model_statistics import ModelStatistics
from mlserver.pipeline import Timings


def counted(rows: int) -> ModelStatistics:
    statistics = ModelStatistics()
    statistics.answered(Timings(queue_ns=1, model_ns=2, transport_ns=3), rows, 10)
    statistics.executed(rows, 2)
    statistics.failed(5)
    statistics.looked_up(True, 1)
    return statistics


def test_they_travel() -> None:
    sent = counted(3)
    received = ModelStatistics.from_frame(
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent.to_frame()))
    )
    assert received.to_plain("m", "1") == sent.to_plain("m", "1")


def test_sums() -> None:
    sums = ModelStatistics()
    for rows in (3, 3, 4):
        sums.add(counted(rows))
    plain = sums.to_plain("m", "")

    assert (plain["inference_count"], plain["execution_count"]) == (10, 3)
    assert plain["inference_stats"]["success"] == {"count": 3, "ns": 30}
    assert plain["inference_stats"]["fail"] == {"count": 3, "ns": 15}
    assert plain["inference_stats"]["compute_infer"] == {"count": 3, "ns": 6}
    assert plain["inference_stats"]["cache_hit"] == {"count": 3, "ns": 3}
    assert [(one["batch_size"], one["compute_infer"]["count"]) for one in plain["batch_stats"]] == [
        (3, 2),
        (4, 1),
    ]
    assert plain["last_inference"] > 0
