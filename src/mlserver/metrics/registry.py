"""The Prometheus registry of custom metrics. Importing this module imports prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import custom
from .errors import MetricNotFound


class _Custom(Collector):
    def collect(self) -> Iterator[Metric]:
        return custom.collect()


class MetricsRegistry(CollectorRegistry):
    """A registry with lookup by name; includes the metrics created by `register`."""

    def exists(self, metric_name: str) -> bool:
        return self._find(metric_name) is not None

    def get(self, metric_name: str) -> Any:
        """Return the metric. Raises `MetricNotFound`."""
        metric = self._find(metric_name)
        if metric is None:
            raise MetricNotFound(metric_name)
        return metric

    def _find(self, name: str) -> Any:
        return custom.registered(name) or self._names_to_collectors.get(name)


# Publishes the metrics of `log`, and collectors that are registered here in the server process.
REGISTRY = MetricsRegistry(auto_describe=False)
REGISTRY.register(_Custom())
