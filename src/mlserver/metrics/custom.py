"""The metrics of models' own code: `register` and `log`, and the way from a worker process to the one that is scraped."""

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
    """One value of one metric, as it travels from a worker process. `model_version` is "" for a model without one."""

    name: str
    description: str
    model_name: str
    model_version: str
    value: float


class CustomMetric:
    """A metric of one model, to be observed from anywhere."""

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
        """Observe how many seconds a block, or a decorated function, takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started)


class ModelHistogram:
    """A histogram by `model_name` and `model_version`, used as prometheus_client's are."""

    def __init__(self, name: str, description: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidMetric(
                name, "a name has letters, digits, '_' and ':', and starts with no digit"
            )
        self.name = name
        self.description = description or name

    def labels(self, *values: Any, **named: Any) -> CustomMetric:
        """The series of one model."""
        if (
            (values and named)
            or (named and sorted(named) != sorted(LABELS))
            or (values and len(values) != len(LABELS))
        ):
            raise ValueError(f"the labels are {LABELS[0]} and {LABELS[1]}")
        name, version = values or (named[label] for label in LABELS)
        return CustomMetric(self, str(name), str(version or ""))

    def observe(self, amount: float) -> None:
        """Observe for the model whose code is running. Raises `InvalidModelContext` outside of any."""
        self._current().observe(amount)

    def time(self) -> Any:
        """Observe how many seconds a block, or a decorated function, takes."""
        return self._current().time()

    def _current(self) -> CustomMetric:
        model = current_model()
        if model is None:
            raise InvalidModelContext()
        return CustomMetric(self, *model)


_registered: dict[str, ModelHistogram] = {}
_observed: dict[str, Histogram] = {}
_lock = threading.Lock()
_sink: Callable[[Sample], None] | None = None


def register(name: str, description: str) -> ModelHistogram:
    """The histogram of that name; made if there is none.

    Raises:
        InvalidMetric: Prometheus takes no such name.
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
    """Observe one value for each metric, named by keyword; a metric that is new is registered.

    Raises:
        InvalidModelContext: The calling code belongs to no model.
        InvalidMetric: A value is no number.
    """
    for name, value in metrics.items():
        register(name, "").observe(value)


def set_sink(sink: Callable[[Sample], None] | None) -> None:
    """Where observations go: in a worker process, a function that sends them to its parent; None = counted here."""
    global _sink
    _sink = sink


def receive(observation: Sample) -> None:
    """Count an observation in this process."""
    with _lock:
        held = _observed.get(observation.name)
        if held is None:
            held = _observed[observation.name] = Histogram(
                observation.name, observation.description, LABELS
            )
        held.observe((observation.model_name, observation.model_version), observation.value)


def forget(model_name: str, model_version: str | None) -> None:
    """Remove all series of a model that is no longer there."""
    with _lock:
        for held in _observed.values():
            held.remove((model_name, model_version or ""))


def collect() -> Iterator[Metric]:
    """The families as prometheus_client wants them."""
    with _lock:
        families = [held.family() for held in _observed.values()]
    yield from families
