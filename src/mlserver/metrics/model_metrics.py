"""Metrics and statistics of one model version.

Each request calls `request_started`, `run_started`, `run_finished` and `request_finished`, which
write to the instruments' values directly: 4 function calls per request, where one method per
instrument took 23 (`python -m benchmarks.call_counts`).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..pipeline import Timings
from .instruments import (
    COUNT_BUCKETS,
    DURATION_BUCKETS,
    LATENCY_BOUNDS,
    LOAD_BUCKETS,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Labels,
    Summary,
)
from .model_statistics import MAX_EXACT_BATCH, ModelStatistics, get_size_class

if TYPE_CHECKING:
    from .recent_errors import RecentErrors

_MODEL = ("model", "version")
_MODEL_1X = ("model_name", "model_version")  # label names of MLServer 1.x's batch queue
REJECTION_REASONS = ("queue_full", "deadline")
# Raised in a request whose client has disconnected or has closed its stream.
_DISCONNECTED = (asyncio.CancelledError, GeneratorExit)


class ModelInstruments:
    """The instruments labelled with a model and its version, shared by all models of this process.

    Attributes:
        loaded: Labels of the loaded models. Other models get no series, so their number is bounded
            by what is loaded.
    """

    def __init__(self) -> None:
        self.loaded: set[Labels] = set()
        self.success = Counter(
            "model_infer_request_success", "Inference requests answered with success", _MODEL
        )
        self.failure = Counter(
            "model_infer_request_failure", "Inference requests that failed", _MODEL
        )
        self.in_flight = Gauge(
            "model_infer_requests_in_flight", "Inference requests waiting or running", _MODEL
        )
        self.cache_hits = Counter(
            "model_infer_cache_hits", "Inference requests answered from the response cache", _MODEL
        )
        self.cache_misses = Counter(
            "model_infer_cache_misses", "Inference requests not in the response cache", _MODEL
        )
        self.load_failures, self.load_seconds = _create_load_instruments()
        self.duration = Summary(
            "model_infer_request_duration", "Duration of inference requests in seconds", _MODEL
        )
        self.seconds = _create_latency_histogram(
            "model_infer_request_duration_seconds", "Duration of inference requests in seconds"
        )
        self.queue_seconds = _create_latency_histogram(
            "model_infer_queue_duration_seconds", "Time in the model's queue in seconds"
        )
        self.batch_requests = Histogram(
            "model_infer_batch_requests", "Requests per batch", _MODEL, COUNT_BUCKETS
        )
        self.batch_rows = Histogram(
            "model_infer_batch_rows", "Rows per batch", _MODEL, COUNT_BUCKETS
        )
        self.batch_queue = Histogram(
            "batch_request_queue",
            "Requests in the model's queue when another request arrives",
            _MODEL_1X,
            COUNT_BUCKETS,
        )
        self.rejected = Counter(
            "model_infer_requests_rejected", "Requests rejected on admission", (*_MODEL, "reason")
        )
        self.swaps = Counter(
            "model_swaps", "Reloads after a model registry alias changed", (*_MODEL, "outcome")
        )
        self.shadows = Counter(
            "model_shadow_requests", "Requests copied to a shadow version", (*_MODEL, "outcome")
        )
        self.payload_events, self.payload_dropped = _create_payload_counters()
        self.parallel_queue = Histogram(
            "parallel_request_queue",
            "Batches and requests running in the model's workers when another one is sent",
            (),
            COUNT_BUCKETS,
        )

    @cached_property
    def errors(self) -> RecentErrors:
        """The most recent error responses; their module is imported with the first one."""
        from .recent_errors import RecentErrors

        return RecentErrors()

    def by_model(self) -> tuple[Instrument, ...]:
        """Instruments whose labels are the model and its version."""
        outcomes = (self.success, self.failure, self.in_flight)
        counts = (*outcomes, self.cache_hits, self.cache_misses, self.payload_events)
        times = (self.duration, self.seconds, self.queue_seconds)
        batches = (self.batch_requests, self.batch_rows, self.batch_queue)
        return (*counts, *times, *batches, self.load_failures, self.load_seconds)

    def by_outcome(self) -> tuple[Counter, ...]:
        """Counters with a third label: a reason or an outcome."""
        return self.rejected, self.swaps, self.shadows, self.payload_dropped

    def all(self) -> tuple[Instrument, ...]:
        return (*self.by_model(), *self.by_outcome(), self.parallel_queue)

    def add(self, labels: Labels) -> None:
        """Start counting for a model version.

        Counters start at 0, not with their first event: Prometheus' `increase` does not see a
        series begin.
        """
        self.loaded.add(labels)
        for counter in (self.success, self.failure, self.in_flight, self.load_failures):
            counter.values.setdefault(labels, 0)
        for reason in REJECTION_REASONS:
            self.rejected.values.setdefault((*labels, reason), 0)

    def remove(self, labels: Labels) -> None:
        """Remove the series of a model version."""
        for instrument in self.by_model():
            instrument.remove(labels)
        for counter in self.by_outcome():
            for key in [key for key in list(counter.values) if key[:2] == labels]:
                counter.remove(key)


def _create_load_instruments() -> tuple[Counter, Histogram]:
    """Return the counter of failed loads, and the durations of all loads."""
    description = "Duration of loads in seconds, without waiting for other models"
    return (
        Counter("model_load_failures", "Loads that failed", _MODEL),
        Histogram("model_load_seconds", description, _MODEL, LOAD_BUCKETS),
    )


def _create_payload_counters() -> tuple[Counter, Counter]:
    """Return the counters of written and of dropped events of the payload log."""
    name, what = "mlserver_payload_log", "Events of the payload log that were"
    return (
        Counter(f"{name}_events", f"{what} written", _MODEL),
        Counter(f"{name}_dropped", f"{what} dropped", (*_MODEL, "reason")),
    )


def _create_latency_histogram(name: str, description: str) -> Histogram:
    """Return a histogram that counts in fine buckets and publishes `DURATION_BUCKETS`."""
    return Histogram(name, description, _MODEL, LATENCY_BOUNDS, DURATION_BUCKETS)


class ModelMetrics:
    """Records the requests of one model version, while the version is loaded.

    Attributes:
        statistics: The same requests in the terms of the statistics extension; recorded whether
            loaded or not.
    """

    def __init__(self, instruments: ModelInstruments, name: str, version: str | None) -> None:
        self.statistics = ModelStatistics()
        self._instruments = instruments
        self._labels: Labels = (name, version or "")
        self._loaded = instruments.loaded

    # -- data plane --

    def request_started(self) -> None:
        """Record the arrival of a request. Each needs one `request_finished`."""
        labels = self._labels
        if labels in self._loaded:
            values = self._instruments.in_flight.values
            values[labels] = values.get(labels, 0) + 1

    def request_finished(
        self, timings: Timings, elapsed_ns: int, error: BaseException | None = None
    ) -> None:
        """Record the end of a request.

        Args:
            timings: As filled by the stages.
            elapsed_ns: Nanoseconds since `request_started`.
            error: What it failed with; None = success. A client that disconnects is not a failure.
        """
        statistics = self.statistics
        if error is None:
            statistics.last_inference = time.time()
            rows = timings.batch_rows // max(timings.batch_requests, 1)
            statistics.inference_count += rows or 1
            statistics.success.count += 1
            statistics.success.ns += elapsed_ns
            statistics.queue_ns += timings.queue_ns
            statistics.model_ns += timings.model_ns
            statistics.transport_ns += timings.transport_ns
        else:
            statistics.fail.count += 1
            statistics.fail.ns += elapsed_ns
        labels = self._labels
        if labels not in self._loaded:
            return
        instruments, seconds = self._instruments, elapsed_ns / 1e9
        in_flight = instruments.in_flight.values
        in_flight[labels] = in_flight.get(labels, 0) - 1
        if isinstance(error, _DISCONNECTED):
            return
        outcomes = (instruments.success if error is None else instruments.failure).values
        outcomes[labels] = outcomes.get(labels, 0) + 1
        durations = instruments.duration.values
        count, total = durations.get(labels, (0, 0.0))
        durations[labels] = (count + 1, total + seconds)
        histogram = instruments.seconds
        buckets = histogram.values.get(labels) or histogram.counts(labels)
        buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        buckets[-1] += seconds

    def request_failed(self, error: Exception, operation: str, request_id: str | None) -> None:
        """Record the error response of a request, for the list of recent errors.

        Args:
            operation: What the client called, as in `RequestContext.operation`.
        """
        name, version = self._labels
        self._instruments.errors.add(error, operation, name, version, request_id)

    # -- scheduler --

    def request_queued(self, queue_size: int) -> None:
        """Record that a request enters the queue, in which `queue_size` requests wait already."""
        if self._labels in self._loaded:
            self._instruments.batch_queue.observe(self._labels, queue_size)

    def request_rejected(self, reason: str) -> None:
        """Record a rejected request. `reason` is "queue_full" or "deadline"."""
        if self._labels in self._loaded:
            self._instruments.rejected.add((*self._labels, reason))

    def run_started(self, in_flight: int, queue_seconds: Sequence[float]) -> None:
        """Record that a batch, a single request or a stream is sent to a worker.

        Args:
            in_flight: How many others of the model are at the workers.
            queue_seconds: Time in the queue of each request; 0.0 = not queued.
        """
        instruments = self._instruments
        histogram = instruments.parallel_queue
        buckets = histogram.values.get(()) or histogram.counts(())
        buckets[bisect_left(COUNT_BUCKETS, in_flight)] += 1
        buckets[-1] += in_flight
        labels = self._labels
        if labels not in self._loaded:
            return
        histogram = instruments.queue_seconds
        buckets = histogram.values.get(labels) or histogram.counts(labels)
        for seconds in queue_seconds:
            buckets[bisect_left(LATENCY_BOUNDS, seconds) if seconds else 0] += 1
            buckets[-1] += seconds

    def run_finished(self, requests: int, rows: int, seconds: float) -> None:
        """Record one execution of the model on `rows` rows of so many requests."""
        statistics = self.statistics
        statistics.execution_count += 1
        size = max(rows, 1) if rows <= MAX_EXACT_BATCH else get_size_class(rows)
        duration = statistics.batches[size]
        duration.count += 1
        duration.ns += int(seconds * 1e9)
        labels = self._labels
        if labels not in self._loaded:
            return
        histogram = self._instruments.batch_requests
        buckets = histogram.values.get(labels) or histogram.counts(labels)
        buckets[bisect_left(COUNT_BUCKETS, requests)] += 1
        buckets[-1] += requests
        histogram = self._instruments.batch_rows
        buckets = histogram.values.get(labels) or histogram.counts(labels)
        buckets[bisect_left(COUNT_BUCKETS, rows)] += 1
        buckets[-1] += rows

    # -- registry --

    def loaded(self, seconds: float) -> None:
        """Record a load that succeeded."""
        self._instruments.load_seconds.observe(self._labels, seconds)

    def load_failed(self) -> None:
        """Record a load that failed."""
        self._instruments.load_failures.add(self._labels)

    # -- payload log: also called in its threads --

    def payload_logged(self) -> None:
        """Record an event of the payload log that was written or sent."""
        if self._labels in self._loaded:
            self._instruments.payload_events.add(self._labels)

    def payload_dropped(self, reason: str) -> None:
        """Record a dropped event of the payload log.

        Args:
            reason: "queue_full", "shutdown", "write_failed", "not_delivered" or "unreadable".
        """
        if self._labels in self._loaded:
            self._instruments.payload_dropped.add((*self._labels, reason))

    # -- response cache, shadow traffic, alias watcher --

    def cache_lookup(self, is_hit: bool, elapsed_ns: int) -> None:
        """Record one lookup in the response cache."""
        duration = self.statistics.cache_hit if is_hit else self.statistics.cache_miss
        duration.add(elapsed_ns)
        if self._labels in self._loaded:
            counter = self._instruments.cache_hits if is_hit else self._instruments.cache_misses
            counter.add(self._labels)

    def shadowed(self, outcome: str) -> None:
        """Record the outcome of a copied request: "same", "different", "failed" or "dropped"."""
        if self._labels in self._loaded:
            self._instruments.shadows.add((*self._labels, outcome))

    def followed(self) -> None:
        """Start counting reloads, at 0."""
        for outcome in ("loaded", "failed"):
            self._instruments.swaps.add((*self._labels, outcome), 0)

    def swapped(self, is_loaded: bool) -> None:
        """Record a reload after the model's alias changed."""
        if self._labels in self._loaded:
            outcome = "loaded" if is_loaded else "failed"
            self._instruments.swaps.add((*self._labels, outcome))
