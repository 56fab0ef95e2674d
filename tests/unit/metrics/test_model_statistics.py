"""Statistics of one model version: as frames for other processes, and their sums."""

from __future__ import annotations

import msgspec
import orjson

from mlserver.metrics import ServerMetrics
from mlserver.metrics.model_statistics import MAX_EXACT_BATCH, ModelStatistics
from mlserver.pipeline import Timings


def recorded(rows: int) -> ModelStatistics:
    """Statistics after one success, one failure and one cache hit."""
    metrics = ServerMetrics().for_model("m", "1")
    metrics.run_finished(1, rows, 2e-9)
    timings = Timings(queue_ns=1, model_ns=2, transport_ns=3, batch_rows=rows)
    metrics.request_finished(timings, 10)
    metrics.request_finished(Timings(), 5, ValueError())
    metrics.cache_lookup(True, 1)
    return metrics.statistics


def test_frames() -> None:
    sent = recorded(3)
    received = ModelStatistics.from_frame(
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent.to_frame()))
    )
    assert received.to_plain("m", "1") == sent.to_plain("m", "1")


def test_sums() -> None:
    sums = ModelStatistics()
    for rows in (3, 3, 4):
        sums.add(recorded(rows))
    plain = sums.to_plain("m", "")

    assert (plain["inference_count"], plain["execution_count"]) == (10, 3)
    assert plain["inference_stats"]["success"] == {"count": 3, "ns": 30}
    assert plain["inference_stats"]["fail"] == {"count": 3, "ns": 15}
    assert plain["inference_stats"]["compute_infer"] == {"count": 3, "ns": 6}
    assert plain["inference_stats"]["cache_hit"] == {"count": 3, "ns": 3}
    assert [
        (batch["batch_size"], batch["compute_infer"]["count"]) for batch in plain["batch_stats"]
    ] == [
        (3, 2),
        (4, 1),
    ]
    assert plain["last_inference"] > 0


def test_the_number_of_batch_sizes_is_bounded() -> None:
    """Tensors of shape [k, 0] have no data, so a client may choose any k."""
    metrics = ServerMetrics().for_model("m", "1")
    sizes = [rows for exponent in range(4, 80) for rows in range(2**exponent, 2**exponent + 100)]
    for rows in sizes:
        metrics.run_finished(1, rows, 0.0)
    plain = metrics.statistics.to_plain("m", "1")
    counted = {batch["batch_size"]: batch["compute_infer"] for batch in plain["batch_stats"]}

    assert {200, 256, 512, 2**40, 2**62} <= set(counted)
    assert not {300, 2**40 + 1} & set(counted)
    assert len(counted) <= MAX_EXACT_BATCH + 62
    assert sum(duration["count"] for duration in counted.values()) == len(sizes)
    assert orjson.dumps(plain)


def test_sums_are_integers_of_63_bits() -> None:
    metrics = ServerMetrics().for_model("m", "1")
    for _ in range(3):
        metrics.request_finished(Timings(batch_rows=2**63, batch_requests=1), 1)
    sums = ModelStatistics()
    for _ in range(2):
        frame = msgspec.msgpack.encode(metrics.statistics.to_frame())
        sums.add(ModelStatistics.from_frame(msgspec.msgpack.decode(frame)))
    plain = sums.to_plain("m", "1")
    assert plain["inference_count"] == 2**63 - 1
    assert orjson.dumps(plain)
