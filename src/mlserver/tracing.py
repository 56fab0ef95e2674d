"""OpenTelemetry: who gets the spans, and how a trace goes on from a caller's header into this process or a worker.

Nothing here is imported by a server without `tracing_server`; the libraries are the extra `tracing`.
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

_MISSING = "The setting 'tracing_server' needs libraries that are not installed: pip install 'mlserver[tracing]'"


def get_tracer_provider(settings: Settings) -> TracerProvider | None:
    """A provider that sends spans to `tracing_server`, over OTLP and gRPC without TLS; None if that is not set.

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
        raise MLServerError(_MISSING, 500) from None
    resource = Resource.create(
        {"service.name": settings.server_name, "service.version": settings.server_version}
    )
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=settings.tracing_server, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def publish(provider: TracerProvider) -> None:
    """Let models' own code find the provider by OpenTelemetry's usual way, unless the program has set one."""
    from opentelemetry import trace
    from opentelemetry.trace import ProxyTracerProvider

    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        trace.set_tracer_provider(provider)


def context_of(headers: Mapping[str, Any]) -> Context:
    """The caller's context, from its W3C `traceparent` and `tracestate`; an empty one if they are missing or wrong."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {
        name: str(headers[name]) for name in ("traceparent", "tracestate") if name in headers
    }
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


@contextmanager
def resumed(trace_parent: str) -> Iterator[None]:
    """Run a block as a part of that trace: spans that it starts are children of the one that `trace_parent` names."""
    from opentelemetry import context

    token = context.attach(context_of({"traceparent": trace_parent}))
    try:
        yield
    finally:
        context.detach(token)
