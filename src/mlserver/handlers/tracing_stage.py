"""Tracing stage: one OpenTelemetry span per request.

Part of the pipeline only if `tracing_server` is set. The span has the children `queue` and `batch`,
and `batch` has the child `model`. They are derived from the timings in the request's context, so
that the other stages do not depend on tracing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from ..errors import MLServerError
from ..log_context import variable
from ..pipeline import RequestContext, Timings
from ..registry import ModelPipeline, OuterStage
from ..tracing import extract_context
from ..types import InferenceRequest, InferenceResponse


class TracingStage(OuterStage):
    """Records a span for each request.

    Args:
        pipeline: The next stage.
        provider: Exports the spans.
        name: Name of the model.
        version: Its version.
    """

    def __init__(
        self, pipeline: ModelPipeline, provider: TracerProvider, name: str, version: str | None
    ) -> None:
        super().__init__(pipeline)
        self._tracer = provider.get_tracer("mlserver")
        self._name = name
        self._attributes = {"mlserver.model.name": name, "mlserver.model.version": version or ""}

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        with self._span("infer", context, request.id) as span:
            started = time.time_ns()
            try:
                return await self._pipeline.infer(request, context)
            finally:
                self._add_children(span, context.timings, started, time.time_ns())

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
        """Start a span below the client's, and set it as the parent of the model's spans."""
        headers: dict[str, Any] = dict(context.headers or {})
        if context.trace_parent:
            headers["traceparent"] = context.trace_parent
        attributes = dict(self._attributes)
        if request_id:
            attributes["mlserver.request.id"] = request_id
        name = context.operation or f"{kind} {self._name}"
        span = self._tracer.start_span(name, extract_context(headers), SpanKind.SERVER, attributes)
        ids = span.get_span_context()
        context.trace_parent = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"
        log_context = variable.get()
        if log_context is not None:
            log_context.trace_parent = context.trace_parent
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

    def _add_children(self, span: Span, timings: Timings, started: int, ended: int) -> None:
        if timings.queue_ns:
            self._add_child("queue", span, started, started + timings.queue_ns)
        if not timings.model_ns:
            return
        sent = max(started + timings.queue_ns, ended - timings.transport_ns - timings.model_ns)
        counts = {
            "mlserver.batch.requests": timings.batch_requests,
            "mlserver.batch.rows": timings.batch_rows,
        }
        batch = self._add_child("batch", span, sent, ended, counts)
        model_started = sent + timings.transport_ns // 2
        model_ended = min(ended, model_started + timings.model_ns)
        self._add_child("model", batch, model_started, model_ended)

    def _add_child(
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
