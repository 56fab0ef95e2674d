"""Monitoring documents: what runs and how well, as plain data for `/v2/console/...`.

Counts are sums over all HTTP worker processes since the start of the server; a reader computes
rates from two documents. Times are seconds since the epoch, durations are seconds. Unknown values
are None.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import MLServerError, remove_paths
from ..metrics.instruments import COUNT_BUCKETS, LATENCY_BOUNDS, Counter, Histogram
from ..metrics.model_metrics import ModelInstruments
from ..metrics.model_statistics import ModelStatistics
from ..metrics.recent_errors import merge_errors
from ..metrics.server_metrics import ServerMetrics
from ..parallel.death_count import ProcessEvents
from ..parallel.executor import LoadedModel
from ..parallel.model_source import get_source
from ..parallel.process_usage import read_usage
from ..registry import ModelRegistryView, ModelVersion
from ..settings import Settings
from ..types import State
from .alias_watcher import AliasState
from .dataplane import DataPlane

Document = dict[str, Any]

# Seconds for which a document is reused: any number of consoles cost one collection per interval.
REUSE = 0.4


class ProcessGroup(Protocol):
    """The processes with front ends: this one, and the HTTP worker processes."""

    async def metrics(self) -> ServerMetrics:
        """Return the sums of all processes' metrics."""
        ...

    async def statistics(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        """Return the sums of all processes' statistics of these models."""
        ...

    async def recent_errors(self) -> list[Document]:
        """Return the recent errors of each process."""
        ...

    def list_http_workers(self) -> list[Document]:
        """Return `index`, `pid` and `serving` of each HTTP worker process."""
        ...

    @property
    def http_worker_deaths(self) -> Mapping[str, int]:
        """Unexpected ends of HTTP worker processes, by `exit_codes.EXIT_REASONS`."""
        ...


class SingleProcess:
    """A server without HTTP worker processes."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    async def metrics(self) -> ServerMetrics:
        return self._metrics

    async def statistics(self, entries: Sequence[ModelVersion]) -> list[ModelStatistics]:
        return [entry.statistics for entry in entries]

    async def recent_errors(self) -> list[Document]:
        return [self._metrics.errors.export()]

    def list_http_workers(self) -> list[Document]:
        return []

    http_worker_deaths: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class ServerState:
    """What the documents are built from, in the server's process.

    Attributes:
        started: Time of the start.
        list_pools: Returns the worker pools with their keys, see `parallel.pool_manager`.
        alias_states: What polling the aliases has found, by model version.
        count_events: Returns what has happened to the worker processes.
        http_workers: HTTP worker processes while none is being replaced, without this process.
        ports: Protocol -> port that the server listens on.
    """

    started: float
    registry: ModelRegistryView
    data_plane: DataPlane
    processes: ProcessGroup
    list_pools: Callable[[], list[tuple[Any, Any]]]
    alias_states: dict[ModelVersion, AliasState]
    count_events: Callable[[], ProcessEvents] = ProcessEvents
    http_workers: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)


class Monitoring:
    """Builds the documents in the server's process."""

    def __init__(self, settings: Settings, state: ServerState) -> None:
        self._settings = settings
        self._state = state
        self._documents: dict[str, tuple[float, asyncio.Task[Document]]] = {}

    async def read(self, name: str) -> Document:
        """Return a document, at most `REUSE` seconds old.

        Raises:
            MLServerError: there is no such document.
        """
        now = time.monotonic()
        built = self._documents.get(name)
        if built is None or now - built[0] > REUSE or built[1].cancelled():
            built = now, asyncio.ensure_future(self._build(name))
            self._documents[name] = built
        return await asyncio.shield(built[1])

    async def _build(self, name: str) -> Document:
        builders: dict[str, Callable[[], Awaitable[Document]]] = {
            "metrics": self._metrics,
            "routing": self._routing,
            "workers": self._workers,
            "errors": self._errors,
            "settings": self._describe_settings,
            "ports": self._list_ports,
        }
        if name not in builders:
            raise MLServerError(f"Document '{name}' not found", 404)
        return await builders[name]()

    async def _metrics(self) -> Document:
        state = self._state
        entries = state.registry.entries()
        metrics = await state.processes.metrics()
        statistics = await state.processes.statistics(entries)
        models = [
            describe_model(entry, metrics.models, counts)
            for entry, counts in zip(entries, statistics, strict=True)
        ]
        now = time.time()
        return {
            "time": now,
            "server": {
                "name": self._settings.server_name,
                "version": self._settings.server_version,
                "started": state.started,
                "live": True,
                "ready": await state.data_plane.ready(),
                "production": self._settings.production,
            },
            "latency_bounds": LATENCY_BOUNDS,
            "count_bounds": COUNT_BUCKETS,
            "models": models,
            "missing": sorted(state.registry.missing),
            "processes": self._list_processes(),
        }

    def _list_processes(self) -> list[Document]:
        processes: list[tuple[str, int, int | None]] = [("server", os.getpid(), None)]
        http_workers = self._state.processes.list_http_workers()
        processes += [("http_worker", worker["pid"], None) for worker in http_workers]
        for _, pool in self._state.list_pools():
            processes += [("worker", pid, pool.number) for pid in pool.pids]
        return [
            {"kind": kind, "pid": pid, "pool": pool, **read_usage(pid)}
            for kind, pid, pool in processes
        ]

    async def _routing(self) -> Document:
        registry = self._state.registry
        models = [
            self._describe_routing(default, registry.versions(default.name))
            for default in registry.defaults()
        ]
        return {"time": time.time(), "models": models}

    def _describe_routing(self, default: ModelVersion, versions: list[ModelVersion]) -> Document:
        split = default.split
        shares = _compute_shares(default, versions)
        described = [
            {
                **_describe_version(entry),
                "is_default": entry is default,
                "share": shares.get(entry.version, 0.0),
                "is_shadow": split is not None and split.shadow == entry.version,
                "alias": _describe_alias(self._state.alias_states.get(entry)),
            }
            for entry in versions
        ]
        return {
            "name": default.name,
            "default_version": default.version or "",
            "weights": dict(split.weights) if split is not None else {},
            "sticky_header": split and split.sticky_header,
            "shadow": split and split.shadow,
            "versions": described,
        }

    async def _workers(self) -> Document:
        pools = [_describe_pool(key, pool) for key, pool in self._state.list_pools()]
        http_workers = [
            {**worker, **read_usage(worker["pid"])}
            for worker in self._state.processes.list_http_workers()
        ]
        return {
            "time": time.time(),
            "server": {"pid": os.getpid(), **read_usage(os.getpid())},
            "http_workers": http_workers,
            "pools": pools,
        }

    async def _errors(self) -> Document:
        merged = merge_errors(await self._state.processes.recent_errors())
        return {"time": time.time(), "since": self._state.started, **merged}

    async def _list_ports(self) -> Document:
        return dict(self._state.ports)

    async def _describe_settings(self) -> Document:
        from ..settings.effective import list_effective_settings

        settings = await asyncio.to_thread(list_effective_settings, self._settings)
        return {"settings": [setting.to_document() for setting in settings]}


def _compute_shares(default: ModelVersion, versions: list[ModelVersion]) -> dict[str | None, float]:
    """Return the share of each ready version in the requests that name no version."""
    weights = default.split.weights if default.split is not None else ()
    ready = {entry.version for entry in versions if entry.ready}
    usable = {version: weight for version, weight in weights if version in ready}
    total = sum(usable.values())
    if not total:
        return {default.version: 1.0}
    return {version: weight / total for version, weight in usable.items()}


def _describe_version(entry: ModelVersion) -> Document:
    info = entry.loaded.info if entry.loaded is not None else None
    return {
        "version": entry.version or "",
        "state": get_state(entry).value,
        "reason": remove_paths(entry.reason),
        "source": get_source(info),
    }


def get_state(entry: ModelVersion) -> State:
    """Return READY only if a request can run now; LOADING also while another load serves."""
    if entry.state is State.READY and not entry.ready:
        return State.UNAVAILABLE
    return entry.state


def describe_model(
    entry: ModelVersion, instruments: ModelInstruments, statistics: ModelStatistics
) -> Document:
    """Return state, counts and histograms of one model version.

    A histogram is a sparse object: `counts` maps the index of a bucket (the upper bounds are those
    of the document; the next index is +Inf) to its count, `sum` is the sum of the observations.
    """
    pipeline = entry.pipeline
    return {
        "name": entry.name,
        "version": entry.version or "",
        "state": get_state(entry).value,
        "ready": entry.ready,
        "reason": remove_paths(_get_reason(entry)),
        "implementation": entry.settings.implementation_,
        "max_batch_size": pipeline.max_batch_size if pipeline is not None else None,
        **_describe_load(entry.loaded),
        **_read_counts(instruments, (entry.name, entry.version or "")),
        **_read_statistics(statistics),
    }


def _get_reason(entry: ModelVersion) -> str:
    """Return why a version is not ready, or why its last load failed."""
    loaded = entry.loaded
    if entry.reason or loaded is None or entry.ready:
        return entry.reason
    return loaded.unavailable_reason


def _describe_load(loaded: LoadedModel | None) -> Document:
    if loaded is None:
        unknown = ("platform", "source", "load_seconds", "streams", "row_wise")
        return {**dict.fromkeys(unknown), "routes": []}
    info = loaded.info
    return {
        "platform": info.metadata.platform,
        "source": get_source(info),
        "load_seconds": info.load_seconds,
        "streams": info.streams,
        "row_wise": info.row_wise,
        "routes": [route.path for route in info.routes],
    }


def _read_counts(instruments: ModelInstruments, labels: tuple[str, str]) -> Document:
    return {
        "success": int(instruments.success.values.get(labels, 0)),
        "failure": int(instruments.failure.values.get(labels, 0)),
        "in_flight": int(instruments.in_flight.values.get(labels, 0)),
        "rejected": _read_outcomes(instruments.rejected, labels),
        "shadow": _read_outcomes(instruments.shadows, labels),
        "swaps": _read_outcomes(instruments.swaps, labels),
        "cache_hits": int(instruments.cache_hits.values.get(labels, 0)),
        "cache_misses": int(instruments.cache_misses.values.get(labels, 0)),
        "latency": _read_histogram(instruments.seconds, labels),
        "queue": _read_histogram(instruments.queue_seconds, labels),
        "batch_requests": _read_histogram(instruments.batch_requests, labels),
    }


def _read_statistics(statistics: ModelStatistics) -> Document:
    """Return sums over the successful requests, and [rows, executions, seconds] per batch size."""
    batches = [[rows, spent.count, spent.ns / 1e9] for rows, spent in statistics.batches.items()]
    return {
        "rows": statistics.row_count,
        "executions": statistics.execution_count,
        "last_request": statistics.last_inference or None,
        "queue_seconds": statistics.queue_ns / 1e9,
        "model_seconds": statistics.model_ns / 1e9,
        "transport_seconds": statistics.transport_ns / 1e9,
        "batches": sorted(batches),
    }


def _read_outcomes(counter: Counter, labels: tuple[str, str]) -> dict[str, int]:
    return {key[2]: int(value) for key, value in counter.values.items() if key[:2] == labels}


def _read_histogram(histogram: Histogram, labels: tuple[str, str]) -> Document:
    values = histogram.values.get(labels)
    if values is None:
        return {"counts": {}, "sum": 0.0}
    counts = {str(index): int(count) for index, count in enumerate(values[:-1]) if count}
    return {"counts": counts, "sum": values[-1]}


def _describe_alias(state: AliasState | None) -> Document | None:
    if state is None:
        return None
    return {
        "address": state.address,
        "interval": state.interval,
        "checked": state.checked,
        "moved": state.moved,
        "failure": remove_paths(state.failure),
        "failed": state.failed,
    }


def _describe_pool(key: Any, pool: Any) -> Document:
    all_keys = {key for worker in pool.workers for key in worker.model_keys}
    workers = [
        {
            "pid": worker.pid,
            "in_flight": worker.in_flight,
            "models": _get_names(worker.model_keys),
            "missing_models": _get_names(all_keys - worker.model_keys),
            **read_usage(worker.pid),
        }
        for worker in pool.workers
    ]
    return {
        "number": pool.number,
        "environment": key.environment,
        "group": key.group,
        "has_own_code": bool(key.code),
        "size": pool.size,
        "ready": len(workers),
        "models": _get_names(all_keys),
        "workers": workers,
        "restarts": pool.exits.count,
        "exits": list(pool.exits.latest),
    }


def _get_names(keys: Iterable[str]) -> list[str]:
    """Return the distinct names of models by their keys in workers."""
    return sorted({key.partition("#")[0] for key in keys})
