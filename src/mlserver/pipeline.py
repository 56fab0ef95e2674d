"""The contract between the stages of the inference pipeline.

A stage takes a request and returns a response. Stages nest, and each depends only on this contract
of the next one. `RequestContext` is passed through all stages with the request. This module imports
no protocol, framework or process.
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
    """Durations of one request in nanoseconds, and the size of the batch it ran in."""

    queue_ns: int = 0
    model_ns: int = 0
    transport_ns: int = 0
    batch_requests: int = 1
    batch_rows: int = 0


@dataclass(slots=True)
class RequestContext:
    """Data of one request beside its message.

    Attributes:
        deadline: Monotonic seconds after which the request fails; None = no limit.
        priority: 1 is highest; 0 = the model's default.
        trace_parent: W3C trace context of the model's spans and log lines: the client's, or that of
            the span of the tracing stage.
        rows_per_request: Rows of each request in the batch, in order; () = not a batch.
        joined_ids: Id of each request in the batch, in order; () = not a batch.
        selected_version: Version selected by the traffic split; None = not selected yet.
        headers: The client's HTTP headers or gRPC metadata, with names in lower case.
        operation: HTTP method and route, or the RPC; the name of the request's span.
        response_headers: Headers that the model adds to the response.
        timings: Filled in by the stages.
    """

    deadline: float | None = None
    priority: int = 0
    trace_parent: str | None = None
    rows_per_request: Sequence[int] = ()
    joined_ids: Sequence[str | None] = ()
    selected_version: str | None = None
    headers: Mapping[str, Any] | None = None
    operation: str | None = None
    response_headers: dict[str, Any] | None = None
    timings: Timings = field(default_factory=Timings)

    def remaining(self) -> float | None:
        """Return the seconds until the deadline (negative if it has passed); None = no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class Stage(Protocol):
    """One stage of one model's pipeline."""

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        """Return the response to one request.

        Raises `MLServerError` for errors reported to the client.
        """
        ...

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        """Yield responses to a stream of requests. Closing the iterator stops the work."""
        ...
