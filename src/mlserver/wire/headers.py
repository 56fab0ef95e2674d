"""Value of the response header `Server-Timing`."""

from __future__ import annotations

from ..pipeline import Timings

_SERVER_TIMING = (
    'queue;dur=%.3f, batch;desc="%d requests, %d rows", model;dur=%.3f, transport;dur=%.3f, '
    "codec;dur=%.3f"
)


def server_timing(timings: Timings, codec_ns: int = 0) -> str:
    """Return the value of `Server-Timing`: milliseconds per stage.

    `batch` has no duration: its description is the number of requests and of rows in the batch.
    """
    return _SERVER_TIMING % (
        timings.queue_ns / 1e6,
        timings.batch_requests,
        timings.batch_rows,
        timings.model_ns / 1e6,
        timings.transport_ns / 1e6,
        codec_ns / 1e6,
    )
