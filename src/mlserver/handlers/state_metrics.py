"""Reads the state of the server's models and processes for the metrics page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from ..metrics.state_instruments import StateInstruments
from ..parallel.process_usage import read_usage
from ..parallel.processes.exit_codes import EXIT_REASONS
from ..registry import ModelRegistryView
from ..version import __version__
from .monitoring import ServerState

# Value of the label `pool` for HTTP worker processes; pools of workers have numbers.
HTTP_POOL = "http"


def read_state(state: ServerState) -> StateInstruments:
    """Return the state as metrics. Reads two small files of /proc for each worker process."""
    instruments = StateInstruments()
    instruments.info.add((__version__,))
    instruments.tasks.add((), len(asyncio.all_tasks()))
    _add_models(instruments, state.registry)
    for _, pool in state.list_pools():
        ready = [worker.pid for worker in pool.workers]
        _add_processes(instruments, str(pool.number), ready, pool.size)
    http_workers = state.processes.list_http_workers()
    if http_workers:
        serving = [worker["pid"] for worker in http_workers if worker["serving"]]
        _add_processes(instruments, HTTP_POOL, serving, state.http_workers)
    events = state.count_events()
    _add_deaths(instruments, "worker", events.deaths)
    _add_deaths(instruments, "http_worker", state.processes.http_worker_deaths)
    instruments.refused_forks.add((), events.refused_forks)
    return instruments


def _add_models(instruments: StateInstruments, registry: ModelRegistryView) -> None:
    for entry in registry.entries():
        labels = entry.name, entry.version or ""
        instruments.model_ready.values[labels] = int(entry.ready)
        calls = 0 if entry.loaded is None else entry.loaded.abandoned_calls
        instruments.abandoned_calls.values[labels] = calls
    for name in registry.missing:
        instruments.model_ready.values.setdefault((name, ""), 0)


def _add_processes(instruments: StateInstruments, pool: str, ready: list[int], size: int) -> None:
    instruments.workers.add((pool, "ready"), len(ready))
    instruments.workers.add((pool, "missing"), max(0, size - len(ready)))
    for pid in ready:
        resident = read_usage(pid)["resident_bytes"]
        if resident is not None:
            instruments.worker_memory.add((pool, str(pid)), resident)


def _add_deaths(instruments: StateInstruments, kind: str, deaths: Mapping[str, int]) -> None:
    # Each series starts at 0: Prometheus' `increase` does not count the first value of a series.
    counts = Counter(deaths)
    for reason in EXIT_REASONS:
        instruments.worker_deaths.add((kind, reason), counts[reason])
