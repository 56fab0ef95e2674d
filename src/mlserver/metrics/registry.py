"""The registry of models' own metrics. Importing this module imports prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import custom


class _Custom(Collector):
    def collect(self) -> Iterator[Metric]:
        return custom.collect()


# Holds what `log` counted; other collectors may be registered here and are shown as well (in the server's own process).
REGISTRY = CollectorRegistry(auto_describe=False)
REGISTRY.register(_Custom())
