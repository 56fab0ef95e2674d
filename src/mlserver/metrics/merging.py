"""Families of metrics from several places -> families of distinct names, which Prometheus needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..logging import get_logger

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

logger = get_logger()
_warned: set[str] = set()


def merge(families: Iterable[Metric], taken: Collection[str]) -> Iterable[Metric]:
    """Return the families, those of one name and type as one.

    Samples of the same labels are added up; of gauges the last one counts. A family of a name that is taken, or of another
    type than the first of its name, is left out with a warning.
    """
    merged: dict[str, Metric] = {}
    for family in families:
        first = merged.get(family.name)
        if family.name in taken or (first is not None and first.type != family.type):
            _warn(family.name)
        elif first is None:
            merged[family.name] = family
        else:
            merged[family.name] = _joined(first, family)
    return merged.values()


def _joined(first: Metric, second: Metric) -> Metric:
    from prometheus_client.metrics_core import Metric

    samples: dict[tuple[Any, ...], Any] = {}
    for sample in (*first.samples, *second.samples):
        key = (sample.name, *sorted(sample.labels.items()))
        known = samples.get(key)
        if known is None or first.type == "gauge":
            samples[key] = sample
        elif sample.name.endswith("_created"):
            samples[key] = sample._replace(value=min(known.value, sample.value))
        else:
            samples[key] = sample._replace(value=known.value + sample.value)
    joined = Metric(first.name, first.documentation, first.type, first.unit)
    joined.samples = list(samples.values())
    return joined


def _warn(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning("Metric '%s' of a model is not shown: another metric has its name", name)
