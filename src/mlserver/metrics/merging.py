"""Merges metric families of several sources: Prometheus requires distinct names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..logging import get_logger

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

logger = get_logger()
_warned: set[str] = set()


def merge(families: Iterable[Metric], taken: Collection[str]) -> Iterable[Metric]:
    """Return the families, merged by name and type.

    Samples with equal labels are added; of gauges, the last one is kept. A family is left out with
    a warning if its name is in `taken`, or if the first family of its name has another type.
    """
    merged: dict[str, Metric] = {}
    for family in families:
        first = merged.get(family.name)
        if family.name in taken or (first is not None and first.type != family.type):
            _warn(family.name)
        elif first is None:
            merged[family.name] = family
        else:
            merged[family.name] = _merge_pair(first, family)
    return merged.values()


def _merge_pair(first: Metric, second: Metric) -> Metric:
    from prometheus_client.metrics_core import Metric

    samples: dict[tuple[Any, ...], Any] = {}
    for sample in (*first.samples, *second.samples):
        key = (sample.name, *sorted(sample.labels.items()))
        existing = samples.get(key)
        if existing is None or first.type == "gauge":
            samples[key] = sample
        elif sample.name.endswith("_created"):
            samples[key] = sample._replace(value=min(existing.value, sample.value))
        else:
            samples[key] = sample._replace(value=existing.value + sample.value)
    merged = Metric(first.name, first.documentation, first.type, first.unit)
    merged.samples = list(samples.values())
    return merged


def _warn(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning("Metric '%s' of a model is not shown: another metric has its name", name)
