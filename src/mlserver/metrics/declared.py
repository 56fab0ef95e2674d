"""Metrics that models declare with prometheus_client, in the process that runs the models.

The server's own metrics of models are in `model_metrics`.

prometheus_client is patched when a model or one of its libraries imports it:

- A model's code may run again (another version, a reload of changed files) and declare its metrics
  again. A duplicate of the same type becomes a further part of the metric, where prometheus_client
  raises ValueError.
- In a worker, values are stored in files (multiprocess mode) that the server reads, see `shared`.
  Parts of one metric share their values: each would overwrite the number of the other.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

LIBRARY = "prometheus_client"
_lock = threading.Lock()
_adapted: set[int] = set()
# Further parts of registered metrics.
_parts: list[Any] = []


def adapt_when_imported() -> None:
    """Patch prometheus_client in this process, now or when it is imported."""
    module = sys.modules.get(LIBRARY)
    if module is not None:
        adapt(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def parts() -> list[Any]:
    """Return the collectors that are further parts of registered metrics."""
    with _lock:
        return list(_parts)


def adapt(module: ModuleType) -> None:
    """Allow repeated declarations in prometheus_client's default registry."""
    with _lock:
        if id(module) in _adapted:
            return
        _adapted.add(id(module))
    registry, values = module.REGISTRY, module.values
    registration = _Registration(registry.register, registry.unregister)
    registry.register, registry.unregister = registration.register, registration.unregister
    if getattr(values.ValueClass, "_multiprocess", False):
        values.ValueClass = _SharedValues(values.ValueClass)


class _Registration:
    """Replaces `register` and `unregister` of a registry.

    Keeps the types of the registered metrics.
    """

    def __init__(self, register: Callable[[Any], None], unregister: Callable[[Any], None]) -> None:
        self._register = register
        self._unregister = unregister
        self._types: dict[str, str] = {}

    def register(self, collector: Any) -> None:
        described = _describe(collector)
        try:
            self._register(collector)
        except ValueError:
            has_same_types = all(self._types.get(name) == kind for name, kind in described.items())
            if not described or not has_same_types:
                raise
            with _lock:
                _parts.append(collector)
        else:
            self._types.update(described)

    def unregister(self, collector: Any) -> None:
        with _lock:
            if any(part is collector for part in _parts):
                _parts[:] = [part for part in _parts if part is not collector]
                return
        self._unregister(collector)
        for name in _describe(collector):
            self._types.pop(name, None)


def _describe(collector: Any) -> dict[str, str]:
    """Return name -> type of the metrics that a collector describes."""
    describe: Callable[[], Iterable[Any]] = getattr(collector, "describe", list)
    return {metric.name: metric.type for metric in describe()}


class _SharedValues:
    """Creates values in files, one per name and labels: equal arguments return the same object."""

    _multiprocess = True

    def __init__(self, value_class: Any) -> None:
        self._value_class = value_class
        self._values: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def __call__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        *more: Any,
        **options: Any,
    ) -> Any:
        key = (typ, name, tuple(labelnames), tuple(labelvalues), options.get("multiprocess_mode"))
        with self._lock:
            if key not in self._values:
                self._values[key] = self._value_class(
                    typ, metric_name, name, labelnames, labelvalues, *more, **options
                )
            return self._values[key]


class _Finder(MetaPathFinder):
    """Import hook that patches prometheus_client after its import."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        adapt(module)
