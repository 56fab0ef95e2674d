"""Admission: the bounds of one model's queue. Pure, with the clock passed in."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Overloaded

# Bounds of `Retry-After` for rejected requests, in seconds.
MIN_RETRY_AFTER = 1.0
MAX_RETRY_AFTER = 60.0


@dataclass(frozen=True)
class AdmissionPolicy:
    """Bounds of one model's queue.

    Attributes:
        max_queue_size: Requests in the queue at most; another one is rejected.
        request_timeout: Seconds from arrival to response at most; None = only the request's own
            deadline holds.
    """

    max_queue_size: int = 1000
    request_timeout: float | None = None

    def admit(self, name: str, waiting: int, avg_seconds_per_request: float) -> None:
        """Check that the queue of `waiting` requests has room for another one.

        Raises:
            Overloaded: it is full. `retry_after` is the time that the queue needs to drain, from 1
                to 60 s.
        """
        if waiting >= self.max_queue_size:
            drain_seconds = waiting * avg_seconds_per_request
            retry_after = min(MAX_RETRY_AFTER, max(MIN_RETRY_AFTER, drain_seconds))
            raise Overloaded(
                f"Model {name} is overloaded: "
                f"{waiting} requests wait already (setting 'max_queue_size')",
                retry_after,
            )

    def deadline(self, now: float, requested: float | None) -> float | None:
        """Return the earlier of the model's limit and the requested deadline (monotonic)."""
        if self.request_timeout is None:
            return requested
        limit = now + self.request_timeout
        return limit if requested is None else min(limit, requested)
