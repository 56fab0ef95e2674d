"""Value of the response header `Server-Timing`."""

from __future__ import annotations

from ..pipeline import Timings

_SERVER_TIMING = 'queue;dur=%.3f, batch;desc="%d requests, %d rows", model;dur=%.3f, transport;dur=%.3f, codec;dur=%.3f'


def server_timing(timings: Timings, codec_ns: int = 0) -> str:
    """The value of `Server-Timing`: milliseconds in the queue, in the model, on the way to it and in the wire format.

    `batch` has no duration: it says how many requests, and rows in all, ran together.
    """
    return _SERVER_TIMING % (
        timings.queue_ns / 1e6,
        timings.batch_requests,
        timings.batch_rows,
        timings.model_ns / 1e6,
        timings.transport_ns / 1e6,
        codec_ns / 1e6,
    )
