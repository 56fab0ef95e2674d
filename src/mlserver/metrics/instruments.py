"""Counters, gauges and histograms as plain data: counting costs a dictionary and a list, and needs no library.

They become prometheus_client's families only when somebody looks. Not locked: each belongs to one thread, or its owner
has a lock; a look from another thread may miss what is counted at that moment.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = tuple[str, ...]

# prometheus_client's default upper bounds, which the published dashboards expect.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# For things that are counted, not timed.
COUNT_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class LabeledValue:
    """One number per combination of labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def remove(self, labels: Labels) -> None:
        self.values.pop(labels, None)

    def absorb(self, labels: Labels, value: Any) -> None:
        """Add a value of `values` of another process's."""
        self.add(labels, value)

    def family(self) -> Metric:
        from prometheus_client import metrics_core

        made: metrics_core.CounterMetricFamily | metrics_core.GaugeMetricFamily
        if self.kind == "counter":
            made = metrics_core.CounterMetricFamily(self.name, self.description, labels=self.labels)
        else:
            made = metrics_core.GaugeMetricFamily(self.name, self.description, labels=self.labels)
        for labels, value in list(self.values.items()):
            made.add_metric(labels, value)
        return made


class Counter(LabeledValue):
    """Only goes up. Prometheus sees the name with `_total`."""

    kind = "counter"


class Gauge(LabeledValue):
    """Goes up and down."""

    kind = "gauge"


class Summary:
    """How many and how much, per combination of labels."""

    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        self.values: dict[Labels, tuple[int, float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        count, total = self.values.get(labels, (0, 0.0))
        self.values[labels] = (count + 1, total + value)

    def remove(self, labels: Labels) -> None:
        self.values.pop(labels, None)

    def absorb(self, labels: Labels, value: Any) -> None:
        """Add a value of `values` of another process's."""
        count, total = self.values.get(labels, (0, 0.0))
        self.values[labels] = (count + value[0], total + value[1])

    def family(self) -> Metric:
        from prometheus_client.metrics_core import SummaryMetricFamily

        made = SummaryMetricFamily(self.name, self.description, labels=self.labels)
        for labels, (count, total) in list(self.values.items()):
            made.add_metric(labels, count_value=count, sum_value=total)
        return made


class Histogram:
    """How many up to each bound, and how much in all, per combination of labels."""

    def __init__(
        self,
        name: str,
        description: str,
        labels: Sequence[str],
        bounds: Sequence[float] = DEFAULT_BUCKETS,
    ) -> None:
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        # Per combination: one count for each bound, one for what is above all, and the sum.
        self.values: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        counts = self.values.get(labels) or self.counts(labels)
        # NaN is above all bounds.
        counts[bisect_left(self.bounds, value) if value == value else len(self.bounds)] += 1
        counts[-1] += value

    def counts(self, labels: Labels) -> list[float]:
        """The counts of one combination, for an owner that adds to them itself, as `observe` does."""
        return self.values.setdefault(labels, [0] * (len(self.bounds) + 1) + [0.0])

    def remove(self, labels: Labels) -> None:
        self.values.pop(labels, None)

    def absorb(self, labels: Labels, value: Any) -> None:
        """Add a value of `values` of another process's."""
        held = self.counts(labels)
        held[:] = [own + more for own, more in zip(held, value, strict=True)]

    def family(self) -> Metric:
        from prometheus_client.metrics_core import HistogramMetricFamily
        from prometheus_client.utils import floatToGoString

        made = HistogramMetricFamily(self.name, self.description, labels=self.labels)
        for labels, held in list(self.values.items()):
            counts = list(held)
            buckets: list[tuple[str, float]] = []
            reached = 0.0
            for bound, count in zip((*self.bounds, math.inf), counts[:-1], strict=True):
                reached += count
                buckets.append((floatToGoString(bound), reached))  # type: ignore[no-untyped-call]
            made.add_metric(labels, buckets=buckets, sum_value=counts[-1])
        return made
