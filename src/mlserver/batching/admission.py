"""What bounds a model's queue: how many may wait, how long they may take, and when to come back. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Overloaded


@dataclass(frozen=True)
class AdmissionPolicy:
    """Bounds of one model's queue.

    Attributes:
        max_queue_size: Requests that may wait; one more is refused at once.
        request_timeout: Seconds from arrival to answer; None = only what the caller asks for.
    """

    max_queue_size: int = 1000
    request_timeout: float | None = None

    def admit(self, name: str, waiting: int, seconds_per_request: float) -> None:
        """Raises `Overloaded`, with the time the queue needs to drain, if `waiting` requests are as many as may wait."""
        if waiting >= self.max_queue_size:
            retry_after = min(60.0, max(1.0, waiting * seconds_per_request))
            text = f"Model {name} is overloaded: {waiting} requests wait already (setting 'max_queue_size')"
            raise Overloaded(text, retry_after)

    def deadline(self, now: float, asked: float | None) -> float | None:
        """The earlier of the model's own limit and what the caller asked for, as a monotonic second."""
        own = None if self.request_timeout is None else now + self.request_timeout
        if own is None or asked is None:
            return asked if own is None else own
        return min(own, asked)
