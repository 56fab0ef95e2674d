"""Metrics of the server's state, read at each scrape and not counted by requests.

`handlers.state_metrics` fills them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .instruments import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_MODEL = ("model", "version")


class StateInstruments:
    """Gauges and counters of models, worker processes and the server at one time."""

    def __init__(self) -> None:
        self.info = Gauge("mlserver_info", "The server; the value is 1", ("version",))
        self.tasks = Gauge("mlserver_event_loop_tasks", "Tasks of the server's event loop", ())
        self.model_ready = Gauge(
            "model_ready", "Whether the model can run inference: 1 or 0", _MODEL
        )
        self.abandoned_calls = Gauge(
            "model_abandoned_calls",
            "Functions of the model that still run although their requests have ended",
            _MODEL,
        )
        self.workers = Gauge(
            "mlserver_workers", "Worker processes and HTTP worker processes", ("pool", "state")
        )
        self.worker_memory = Gauge(
            "mlserver_worker_memory_bytes",
            "Resident memory of a worker process, pages shared with other processes included",
            ("pool", "pid"),
        )
        self.worker_deaths = Counter(
            "mlserver_worker_deaths", "Unexpected ends of worker processes", ("kind", "reason")
        )
        self.refused_forks = Counter(
            "mlserver_forks_refused",
            "Pools whose workers start as new interpreters, because a fork was not safe or failed",
            (),
        )

    def all(self) -> tuple[Counter | Gauge, ...]:
        """Return all instruments, those of models first."""
        models = (self.model_ready, self.abandoned_calls)
        processes = (self.workers, self.worker_memory, self.worker_deaths, self.refused_forks)
        return (*models, *processes, self.info, self.tasks)

    def collect(self) -> Iterator[Metric]:
        """Yield prometheus_client's metric families."""
        for instrument in self.all():
            yield instrument.family()
