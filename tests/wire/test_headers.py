"""The header `Server-Timing`, as text."""

from __future__ import annotations

from mlserver.pipeline import Timings
from mlserver.wire.headers import server_timing


def test_server_timing_is_in_milliseconds() -> None:
    timings = Timings(
        queue_ns=1_500_000,
        model_ns=20_000_000,
        transport_ns=250_000,
        batch_requests=3,
        batch_rows=12,
    )

    assert server_timing(timings, 31_000) == (
        'queue;dur=1.500, batch;desc="3 requests, 12 rows", model;dur=20.000, '
        "transport;dur=0.250, codec;dur=0.031"
    )
