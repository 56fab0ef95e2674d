"""OpenTelemetry: the tracer provider, and trace contexts passed from clients to workers.

The libraries (extra `tracing`) are imported only if the setting `tracing_server` is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import MLServerError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from .settings import Settings

_NOT_INSTALLED = (
    "The setting 'tracing_server' needs libraries that are not installed: "
    "pip install 'mlserver[tracing]'"
)


def get_tracer_provider(settings: Settings) -> TracerProvider | None:
    """Return a provider that sends spans to `tracing_server` by OTLP over gRPC without TLS.

    None if that is not set.

    Raises:
        MLServerError: OpenTelemetry is not installed.
    """
    if not settings.tracing_server:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MLServerError(_NOT_INSTALLED, 500) from None
    resource = Resource.create(
        {"service.name": settings.server_name, "service.version": settings.server_version}
    )
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=settings.tracing_server, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def set_global_provider(provider: TracerProvider) -> None:
    """Make the provider OpenTelemetry's global one, unless the program has set one."""
    from opentelemetry import trace
    from opentelemetry.trace import ProxyTracerProvider

    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        trace.set_tracer_provider(provider)


def extract_context(headers: Mapping[str, Any]) -> Context:
    """Return the trace context of the W3C headers `traceparent` and `tracestate`.

    Empty if they are missing or invalid.
    """
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {
        name: str(headers[name]) for name in ("traceparent", "tracestate") if name in headers
    }
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


@contextmanager
def use_trace_parent(trace_parent: str) -> Iterator[None]:
    """Run a block whose spans become children of the span in `trace_parent`."""
    from opentelemetry import context

    token = context.attach(extract_context({"traceparent": trace_parent}))
    try:
        yield
    finally:
        context.detach(token)
