"""OpenTelemetry: the tracer provider, and trace contexts passed from clients to workers.

The libraries (extra `tracing`) are imported only if tracing is on. The SDK reads the standard
variables: sampler, resource, batches, and the exporter's headers, timeout, compression and
certificates. Only the exporter is selected here: the SDK has no public function for that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import MLServerError, SettingsError
from .logging import get_logger

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from .settings import Settings

logger = get_logger()
# Seconds in which the last spans are sent at shutdown. A collector takes them within milliseconds.
FLUSH_LIMIT = 2.0
# https://opentelemetry.io/docs/specs/otel/protocol/exporter/: the first that is set counts.
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
GRPC, HTTP = "grpc", "http/protobuf"
_TRACES_PATH = "/v1/traces"
# The variables of the collector's address, which the SDK reads.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOT_INSTALLED = "needs libraries that are not installed: pip install 'mlserver[tracing]'"


def get_collector(settings: Settings) -> str | None:
    """Return the address of the collector, from the settings or a variable; None = no tracing."""
    if settings.tracing_server:
        return settings.tracing_server
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "otlp":
        return None
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def get_tracer_provider(settings: Settings) -> TracerProvider | None:
    """Return a provider that sends spans to the collector; None if there is none.

    If a variable only names the collector and OpenTelemetry is not installed, that is a warning:
    the variable may be meant for other libraries.

    Raises:
        MLServerError: `tracing_server` is set, and OpenTelemetry is not installed.
        SettingsError: the variable for the protocol has another value than `grpc` and
            `http/protobuf`.
    """
    if get_collector(settings) is None:
        return None
    protocol = read_protocol()
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _create_exporter(settings.tracing_server, protocol)
    except ImportError:
        if not settings.tracing_server:
            logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT ignored, since tracing %s", _NOT_INSTALLED)
            return None
        raise MLServerError(f"The setting 'tracing_server' {_NOT_INSTALLED}", 500) from None
    resource = Resource.create(
        {"service.name": settings.server_name, "service.version": settings.server_version}
    )
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES precede the settings.
    resource = resource.merge(OTELResourceDetector().detect())
    # `shut_down` sends the last spans; the SDK's own exit handler has no time limit.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def read_protocol() -> str:
    """Return the protocol to the collector, `grpc` unless a variable says otherwise.

    Raises:
        SettingsError: a variable has an unknown value.
    """
    for name in _PROTOCOLS:
        value = os.environ.get(name, "").strip()
        if value in (GRPC, HTTP):
            return value
        if value:
            raise SettingsError(f"{name}: expected '{GRPC}' or '{HTTP}', received '{value}'")
    return GRPC


def _create_exporter(address: str | None, protocol: str) -> SpanExporter:
    """Return the exporter to an address, `host:port` or a URL; None = as the variables say.

    Over HTTP, a URL without a path gets that of OTLP.
    """
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        if address is None:
            return OTLPSpanExporter()
        return OTLPSpanExporter(endpoint=address, insecure=not address.startswith("https://"))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HTTPSpanExporter,
    )

    if address is None:
        return HTTPSpanExporter()
    url = address if "://" in address else f"http://{address}"
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + _TRACES_PATH
    return HTTPSpanExporter(endpoint=url)


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
