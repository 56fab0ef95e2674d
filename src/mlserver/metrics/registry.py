"""The registry of models' own metrics. Importing this module imports prometheus_client."""

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
    """A registry that can be asked for a metric by its name; also for those that `register` has made."""

    def exists(self, metric_name: str) -> bool:
        return self._find(metric_name) is not None

    def get(self, metric_name: str) -> Any:
        """Return the metric. Raises `MetricNotFound`."""
        found = self._find(metric_name)
        if found is None:
            raise MetricNotFound(metric_name)
        return found

    def _find(self, name: str) -> Any:
        return custom.registered(name) or self._names_to_collectors.get(name)


# Holds what `log` counted; other collectors may be registered here and are shown as well (in the server's own process).
REGISTRY = MetricsRegistry(auto_describe=False)
REGISTRY.register(_Custom())
