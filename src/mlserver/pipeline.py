"""The contract of the road: every stage past the front ends takes a request and gives a response, and stages nest.

`Stage` is all that one stage knows of the next. `RequestContext` is what accompanies one request along the road: its deadline and
the timings that each stage leaves behind. Nothing here imports a protocol, a framework or a process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .types import InferenceRequest, InferenceResponse


@dataclass(slots=True)
class Timings:
    """Where one request's time went, in nanoseconds; `batch_requests` and `batch_rows` say how it was joined."""

    queue_ns: int = 0
    model_ns: int = 0
    transport_ns: int = 0
    batch_requests: int = 1
    batch_rows: int = 0


@dataclass(slots=True)
class RequestContext:
    """What travels beside a request.

    Attributes:
        deadline: Monotonic second after which nobody waits for the answer; None = no limit.
        priority: 1 is highest; 0 = the model's default.
        trace_parent: W3C trace context that the model's code goes on with; set by the tracing stage, and by nobody else.
        rows_per_request: Rows of each request that was joined into this one, in order; () = it came as it is.
        selected_version: The version that the traffic split chose for this request; None = none yet.
        headers: The caller's headers or invocation metadata, lower-cased.
        operation: The HTTP method and route, or the RPC, that the request came by: the name of its span.
        response_headers: Headers that the model wants on the answer.
        timings: Filled by the stages on the way back.
    """

    deadline: float | None = None
    priority: int = 0
    trace_parent: str | None = None
    rows_per_request: Sequence[int] = ()
    selected_version: str | None = None
    headers: Mapping[str, Any] | None = None
    operation: str | None = None
    response_headers: dict[str, Any] | None = None
    timings: Timings = field(default_factory=Timings)

    def remaining(self) -> float | None:
        """Seconds left before the deadline (may be negative); None = no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class Stage(Protocol):
    """One stage of one model's road."""

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        """Answer one request. Raises `MLServerError` for whatever the caller should hear of."""
        ...

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        """Answer a stream of requests with a stream of responses. Closing the iterator stops the work."""
        ...
