"""Counters, gauges, summaries and histograms as plain data.

They are converted to prometheus_client's families on collection.

An observation changes one dictionary entry and needs no library. There are no locks: an instrument
belongs to one thread, or its owner has a lock. A collection from another thread may miss an
observation made at the same time.
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
# Upper bounds of the published durations of requests: a small model answers in 0.3 ms, an agent in
# a minute.
DURATION_BUCKETS = (0.0005, 0.001, 0.0025, *DEFAULT_BUCKETS, 30.0, 60.0)
# Upper bounds of the seconds of a load, up to the default of `load_timeout`.
LOAD_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


def _build_latency_bounds() -> tuple[float, ...]:
    """Return bounds from 50 us to 60 s, 16 per decade, that include `DURATION_BUCKETS`."""
    first, per_decade = 5e-5, 16
    exponents = [step / per_decade for step in range(6 * per_decade + 2)]
    grid = [float(f"{first * 10**exponent:.3g}") for exponent in exponents]
    published = DURATION_BUCKETS
    distinct = [bound for bound in grid if _distance(bound, published) > 0.05]
    return tuple(sorted((*distinct, *published)))


def _distance(bound: float, others: Sequence[float]) -> float:
    """Return the smallest relative distance to other bounds."""
    return min(abs(bound / other - 1) for other in others)


# Upper bounds in which durations of requests are counted: percentiles from them are at most 8 %
# off, where `DEFAULT_BUCKETS` cannot distinguish 0.3 ms from 4 ms.
LATENCY_BOUNDS = _build_latency_bounds()
# Upper bounds for numbers of requests and rows.
COUNT_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class LabeledValue:
    """One number per combination of label values."""

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
        """Add one of another process's `values`."""
        self.add(labels, value)

    def family(self) -> Metric:
        from prometheus_client import metrics_core

        family: metrics_core.CounterMetricFamily | metrics_core.GaugeMetricFamily
        if self.kind == "counter":
            family = metrics_core.CounterMetricFamily(
                self.name, self.description, labels=self.labels
            )
        else:
            family = metrics_core.GaugeMetricFamily(self.name, self.description, labels=self.labels)
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        return family


class Counter(LabeledValue):
    """A number that only grows. Published with the suffix `_total`."""

    kind = "counter"


class Gauge(LabeledValue):
    """A number that grows and shrinks."""

    kind = "gauge"


class Summary:
    """Number and sum of the observations, per combination of label values."""

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
        """Add one of another process's `values`."""
        count, total = self.values.get(labels, (0, 0.0))
        self.values[labels] = (count + value[0], total + value[1])

    def family(self) -> Metric:
        from prometheus_client.metrics_core import SummaryMetricFamily

        family = SummaryMetricFamily(self.name, self.description, labels=self.labels)
        for labels, (count, total) in list(self.values.items()):
            family.add_metric(labels, count_value=count, sum_value=total)
        return family


class Histogram:
    """Number of observations per bucket and their sum, per combination of label values.

    Args:
        bounds: Upper bounds of the buckets.
        published: Those of the bounds that the metrics page shows; None = all.
    """

    def __init__(
        self,
        name: str,
        description: str,
        labels: Sequence[str],
        bounds: Sequence[float] = DEFAULT_BUCKETS,
        published: Sequence[float] | None = None,
    ) -> None:
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self._published = frozenset((*(published or bounds), math.inf))
        # Per combination: the count of each bucket (`bounds`, then +Inf), then the sum of the
        # observations.
        self.values: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        counts = self.values.get(labels) or self.counts(labels)
        is_nan = value != value
        counts[len(self.bounds) if is_nan else bisect_left(self.bounds, value)] += 1
        counts[-1] += value

    def counts(self, labels: Labels) -> list[float]:
        """Return the counts of one combination, for code that adds to them as `observe` does."""
        return self.values.setdefault(labels, [0] * (len(self.bounds) + 1) + [0.0])

    def remove(self, labels: Labels) -> None:
        self.values.pop(labels, None)

    def absorb(self, labels: Labels, value: Any) -> None:
        """Add one of another process's `values`."""
        counts = self.counts(labels)
        counts[:] = [count + other for count, other in zip(counts, value, strict=True)]

    def family(self) -> Metric:
        from prometheus_client.metrics_core import HistogramMetricFamily
        from prometheus_client.utils import floatToGoString

        family = HistogramMetricFamily(self.name, self.description, labels=self.labels)
        for labels, values in list(self.values.items()):
            counts = list(values)
            buckets: list[tuple[str, float]] = []
            cumulative = 0.0
            for bound, count in zip((*self.bounds, math.inf), counts[:-1], strict=True):
                cumulative += count
                if bound not in self._published:
                    continue
                buckets.append((floatToGoString(bound), cumulative))  # type: ignore[no-untyped-call]
            family.add_metric(labels, buckets=buckets, sum_value=counts[-1])
        return family


Instrument = Counter | Gauge | Summary | Histogram
