"""Spans of inference: a stage in front of a model's road, there only if `tracing_server` is set.

One span per request, with the parts `queue`, `batch` and, in it, `model`. The parts are drawn from the timings that the
stages leave behind, so that no stage knows of tracing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from ..errors import MLServerError
from ..pipeline import RequestContext, Timings
from ..registry import ModelPipeline
from ..tracing import context_of
from ..types import InferenceRequest, InferenceResponse


class TracingStage:
    """A model's road whose requests become spans.

    Args:
        road: What answers.
        provider: Who gets the spans.
        name, version: The model's.
    """

    def __init__(
        self, pipeline: ModelPipeline, provider: TracerProvider, name: str, version: str | None
    ) -> None:
        self._pipeline = pipeline
        self._tracer = provider.get_tracer("mlserver")
        self._name = name
        self._attributes = {"mlserver.model.name": name, "mlserver.model.version": version or ""}

    @property
    def max_batch_size(self) -> int:
        return self._pipeline.max_batch_size

    async def drained(self) -> None:
        await self._pipeline.drained()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        with self._span("infer", context, request.id) as span:
            started = time.time_ns()
            try:
                return await self._pipeline.infer(request, context)
            finally:
                self._draw_parts(span, context.timings, started, time.time_ns())

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        with self._span("stream", context, None) as span:
            responses, count = self._pipeline.stream(requests, context), 0
            try:
                async for response in responses:
                    count += 1
                    yield response
            finally:
                span.set_attribute("mlserver.responses", count)
                await responses.aclose()  # type: ignore[attr-defined]

    @contextmanager
    def _span(self, kind: str, context: RequestContext, request_id: str | None) -> Iterator[Span]:
        """A span under the caller's own; the model's code gets it as its parent."""
        headers: dict[str, Any] = dict(context.headers or {})
        if context.trace_parent:
            headers["traceparent"] = context.trace_parent
        attributes = self._attributes | ({"mlserver.request.id": request_id} if request_id else {})
        name = context.operation or f"{kind} {self._name}"
        span = self._tracer.start_span(name, context_of(headers), SpanKind.SERVER, attributes)
        own = span.get_span_context()
        context.trace_parent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        try:
            yield span
        except MLServerError as error:
            span.set_status(Status(StatusCode.ERROR, f"{error.code}: {error.message}"))
            raise
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def _draw_parts(self, span: Span, timings: Timings, started: int, ended: int) -> None:
        if timings.queue_ns:
            self._part("queue", span, started, started + timings.queue_ns)
        if not timings.model_ns:
            return
        began = max(started + timings.queue_ns, ended - timings.transport_ns - timings.model_ns)
        counts = {
            "mlserver.batch.requests": timings.batch_requests,
            "mlserver.batch.rows": timings.batch_rows,
        }
        batch = self._part("batch", span, began, ended, counts)
        before = timings.transport_ns // 2
        self._part("model", batch, began + before, min(ended, began + before + timings.model_ns))

    def _part(
        self,
        name: str,
        parent: Span,
        started: int,
        ended: int,
        attributes: dict[str, Any] | None = None,
    ) -> Span:
        span = self._tracer.start_span(
            name, set_span_in_context(parent), attributes=attributes, start_time=started
        )
        span.end(ended)
        return span
