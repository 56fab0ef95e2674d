"""Custom metrics of models (`register`, `log`), and their transfer from workers to the server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..context import current_model
from .errors import InvalidMetric, InvalidModelContext
from .instruments import Histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LABELS = ("model_name", "model_version")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Sample(NamedTuple):
    """One value of one metric, as a worker sends it.

    `model_version` is "" for a model without one.
    """

    name: str
    description: str
    model_name: str
    model_version: str
    value: float


class CustomMetric:
    """A metric of one model, which any code may observe."""

    def __init__(self, metric: ModelHistogram, model_name: str, model_version: str) -> None:
        self.metric = metric
        self.model_name = model_name
        self.model_version = model_version

    def observe(self, amount: float) -> None:
        try:
            value = float(amount)
        except (TypeError, ValueError):
            raise InvalidMetric(
                self.metric.name, f"expected a number, received {type(amount).__name__}"
            ) from None
        sink = _sink or receive
        sink(
            Sample(
                self.metric.name,
                self.metric.description,
                self.model_name,
                self.model_version,
                value,
            )
        )

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe the seconds that a block or a decorated function takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started)


class ModelHistogram:
    """A histogram labelled by model, with the methods of prometheus_client's histogram."""

    def __init__(self, name: str, description: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidMetric(
                name, "a name has letters, digits, '_' and ':', and starts with no digit"
            )
        self.name = name
        self.description = description or name

    def labels(self, *values: Any, **named: Any) -> CustomMetric:
        """Return the series of one model."""
        is_valid = len(values) == len(LABELS) if values else sorted(named) == sorted(LABELS)
        if not is_valid or (values and named):
            raise ValueError(f"the labels are {LABELS[0]} and {LABELS[1]}")
        name, version = values or (named[label] for label in LABELS)
        return CustomMetric(self, str(name), str(version or ""))

    def observe(self, amount: float) -> None:
        """Observe for the model whose code is running.

        Raises `InvalidModelContext` outside of a model's code.
        """
        self._current().observe(amount)

    def time(self) -> Any:
        """Observe the seconds that a block or a decorated function takes."""
        return self._current().time()

    def _current(self) -> CustomMetric:
        model = current_model()
        if model is None:
            raise InvalidModelContext()
        return CustomMetric(self, *model)


_registered: dict[str, ModelHistogram] = {}
_histograms: dict[str, Histogram] = {}
_lock = threading.Lock()
_sink: Callable[[Sample], None] | None = None


def register(name: str, description: str) -> ModelHistogram:
    """Return the histogram of that name, creating it if necessary.

    Raises:
        InvalidMetric: the name is not valid in Prometheus.
    """
    with _lock:
        if name not in _registered:
            _registered[name] = ModelHistogram(name, description)
        return _registered[name]


def registered(name: str) -> ModelHistogram | None:
    """Return the histogram of that name, if there is one."""
    with _lock:
        return _registered.get(name)


def log(**metrics: float) -> None:
    """Observe one value per metric, named by keyword. Unknown metrics are registered.

    Raises:
        InvalidModelContext: the calling code does not belong to a model.
        InvalidMetric: a value is not a number.
    """
    for name, value in metrics.items():
        register(name, "").observe(value)


def set_sink(sink: Callable[[Sample], None] | None) -> None:
    """Set the function that gets all samples: in a worker, one that sends them to the server.

    None = `receive`.
    """
    global _sink
    _sink = sink


def receive(sample: Sample) -> None:
    """Add a sample to this process's histograms."""
    with _lock:
        histogram = _histograms.get(sample.name)
        if histogram is None:
            histogram = _histograms[sample.name] = Histogram(
                sample.name, sample.description, LABELS
            )
        histogram.observe((sample.model_name, sample.model_version), sample.value)


def forget(model_name: str, model_version: str | None) -> None:
    """Remove all series of an unloaded model."""
    with _lock:
        for histogram in _histograms.values():
            histogram.remove((model_name, model_version or ""))


def collect() -> Iterator[Metric]:
    """Yield prometheus_client's metric families."""
    with _lock:
        families = [histogram.family() for histogram in _histograms.values()]
    yield from families
