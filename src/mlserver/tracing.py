"""OpenTelemetry: the tracer provider, and trace contexts passed from clients to workers.

The libraries (extra `tracing`) are imported only if the setting `tracing_server` is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from .errors import MLServerError
from .logging import get_logger

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from .settings import Settings

logger = get_logger()
# Seconds in which the last spans are sent at shutdown. A collector takes them within milliseconds.
FLUSH_LIMIT = 2.0
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
    # `shut_down` sends the last spans; the SDK's own exit handler has no time limit.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.tracing_server, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


async def shut_down(provider: TracerProvider, collector: str, limit: float = FLUSH_LIMIT) -> None:
    """Send the remaining spans, for at most `limit` seconds.

    The SDK tries for 10 s if the collector cannot be reached, and waits up to 30 s. Its thread is
    left behind after the limit; it does not delay the exit of the process.
    """
    thread = Thread(target=provider.shutdown, name="span-flush", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, limit)
    if thread.is_alive():
        logger.warning(
            "Setting 'tracing_server': the collector %s did not take the last spans within %s s; "
            "they are lost",
            collector,
            limit,
        )


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
