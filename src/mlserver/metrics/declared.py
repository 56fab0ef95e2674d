"""Metrics that models' code declares with prometheus_client itself, in the process that runs the models.

prometheus_client is adapted when a model, or a library of one, imports it:

- The code of a model may run again (another version of it, a reload of changed files), and declare its metrics again. What
  prometheus_client refuses as duplicated is another part of the same metric, if it is of the same type.
- In a worker process values live in files (its multiprocess mode), from which the server reads them: see `shared`.
  Parts of the same metric share their values, for each would overwrite the number of the other.
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
# Further parts of metrics that are registered already.
_parts: list[Any] = []


def adapt_when_imported() -> None:
    """Adapt prometheus_client in this process, now or as soon as it is imported."""
    module = sys.modules.get(LIBRARY)
    if module is not None:
        adapt(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def parts() -> list[Any]:
    """The collectors of this process that are parts of metrics which others have registered."""
    with _lock:
        return list(_parts)


def adapt(module: ModuleType) -> None:
    """Let metrics of prometheus_client's own registry be declared several times."""
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
    """`register` and `unregister` of a registry, with the types of what is registered."""

    def __init__(self, register: Callable[[Any], None], unregister: Callable[[Any], None]) -> None:
        self._register = register
        self._unregister = unregister
        self._types: dict[str, str] = {}

    def register(self, collector: Any) -> None:
        described = _described(collector)
        try:
            self._register(collector)
        except ValueError:
            if not described or any(
                self._types.get(name) != kind for name, kind in described.items()
            ):
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
        for name in _described(collector):
            self._types.pop(name, None)


def _described(collector: Any) -> dict[str, str]:
    """Name -> type, for the metrics of a collector that says so."""
    describe: Callable[[], Iterable[Any]] = getattr(collector, "describe", list)
    return {metric.name: metric.type for metric in describe()}


class _SharedValues:
    """Makes values in files: one for each name and labels, however often it is asked for."""

    _multiprocess = True

    def __init__(self, value_class: Any) -> None:
        self._value_class = value_class
        self._made: dict[tuple[Any, ...], Any] = {}
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
            if key not in self._made:
                self._made[key] = self._value_class(
                    typ, metric_name, name, labelnames, labelvalues, *more, **options
                )
            return self._made[key]


class _Finder(MetaPathFinder):
    """Adapts prometheus_client right after its import."""

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
