"""Metrics: the server's own, custom metrics of models, and the endpoint that publishes both.

Models call `register` and `log`. prometheus_client is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .custom import ModelHistogram, Sample, forget, log, receive, register, set_sink
from .declared import adapt_when_imported
from .endpoint import MetricsServer, configure_metrics
from .errors import InvalidMetric, InvalidModelContext, MetricNotFound
from .server_metrics import ServerMetrics

if TYPE_CHECKING:
    from .registry import REGISTRY, MetricsRegistry

__all__ = [
    "REGISTRY",
    "InvalidMetric",
    "InvalidModelContext",
    "MetricNotFound",
    "MetricsRegistry",
    "MetricsServer",
    "ModelHistogram",
    "Sample",
    "ServerMetrics",
    "adapt_when_imported",
    "configure_metrics",
    "forget",
    "log",
    "receive",
    "register",
    "set_sink",
]


def __getattr__(name: str) -> Any:
    if name in ("REGISTRY", "MetricsRegistry"):
        from . import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
