"""What the server counts along the road: requests by route, inference by model, queues and batches.

The labels `model` and `version` are those of loaded models only (`add_model`), so the number of series is bounded by
what is loaded, whatever callers ask for; `version` is "" for a model without one. All methods are for the event loop's
thread. Seconds are seconds; buckets are prometheus_client's defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .instruments import COUNT_BUCKETS, Counter, Gauge, Histogram, Summary

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

APP_NAME = "mlserver"

_MODEL = ("model", "version")
_MODEL_LONG = ("model_name", "model_version")
_REST = ("method", "path", "status_code", "app_name")
_GRPC = ("grpc_type", "grpc_service", "grpc_method")
# HTTP method -> labels of the requests that are open. What is no known method shares one series.
_OPEN = {
    method: (method, APP_NAME)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
}
_OPEN_OTHER = ("OTHER", APP_NAME)
_UNSEEN = (0.0,)  # counts of a model that has no series


class ServerMetrics:
    """The server's own metrics.

    Args:
        rest_prefix: First part of the names of the REST metrics (setting `metrics_rest_server_prefix`).
    """

    def __init__(self, rest_prefix: str = "rest_server") -> None:
        self._rest_prefix = rest_prefix
        self._models: set[tuple[str, str]] = set()

        self._success = Counter(
            "model_infer_request_success", "Inference requests answered", _MODEL
        )
        self._failure = Counter(
            "model_infer_request_failure", "Inference requests that failed", _MODEL
        )
        self._duration = Summary(
            "model_infer_request_duration", "Seconds per inference request", _MODEL
        )
        self._seconds = Histogram(
            "model_infer_request_duration_seconds", "Seconds per inference request", _MODEL
        )
        self._queue_seconds = Histogram(
            "model_infer_queue_duration_seconds", "Seconds waiting for the model", _MODEL
        )
        self._batch_requests = Histogram(
            "model_infer_batch_requests", "Requests in one call of the model", _MODEL, COUNT_BUCKETS
        )
        self._batch_rows = Histogram(
            "model_infer_batch_rows", "Rows in one call of the model", _MODEL, COUNT_BUCKETS
        )
        self._in_flight = Gauge(
            "model_infer_requests_in_flight", "Requests that wait or are computed", _MODEL
        )
        self._rejected = Counter(
            "model_infer_requests_rejected", "Requests refused at the door", (*_MODEL, "reason")
        )
        self._swaps = Counter(
            "model_swaps", "New versions of followed models, loaded or failed", (*_MODEL, "outcome")
        )
        self._shadows = Counter(
            "model_shadow_requests", "Requests copied to a shadow version", (*_MODEL, "outcome")
        )
        self._cache_hits = Counter(
            "model_infer_cache_hits", "Requests answered from the response cache", _MODEL
        )
        self._cache_misses = Counter(
            "model_infer_cache_misses", "Requests that the response cache did not have", _MODEL
        )
        self._batch_queue = Histogram(
            "batch_request_queue",
            "Requests waiting when one more arrives",
            _MODEL_LONG,
            COUNT_BUCKETS,
        )
        self._parallel_queue = Histogram(
            "parallel_request_queue",
            "Calls of a model under way when one more is sent",
            (),
            COUNT_BUCKETS,
        )

        self._rest_requests = Counter(f"{rest_prefix}_requests", "HTTP requests", _REST)
        self._rest_seconds = Histogram(
            f"{rest_prefix}_request_duration_seconds", "Seconds per HTTP request", _REST
        )
        self._rest_open = Gauge(
            f"{rest_prefix}_requests_in_progress", "Open HTTP requests", ("method", "app_name")
        )

        self._grpc_started = Counter("grpc_server_started", "RPCs started", _GRPC)
        self._grpc_handled = Counter(
            "grpc_server_handled", "RPCs finished, by code", (*_GRPC, "grpc_code")
        )
        self._grpc_received = Counter("grpc_server_msg_received", "Messages received", _GRPC)
        self._grpc_sent = Counter("grpc_server_msg_sent", "Messages sent", _GRPC)
        self._grpc_seconds = Histogram("grpc_server_handling_seconds", "Seconds per RPC", _GRPC)

    # -- models --------------------------------------------------------------------------------------------------------

    def add_model(self, model: str, version: str | None) -> None:
        """Start counting for a model. Again for the same one: nothing happens, its counts stay."""
        self._models.add((model, version or ""))

    def remove_model(self, model: str, version: str | None) -> None:
        """Stop counting for a model, and remove its series."""
        labels = (model, version or "")
        self._models.discard(labels)
        for metric in self._of_models():
            metric.remove(labels)
        for counter in self._by_outcome():
            for key in [key for key in counter.values if key[:2] == labels]:
                counter.remove(key)

    def observe_infer(self, model: str, version: str | None, seconds: float, ok: bool) -> None:
        """One inference request from door to door."""
        labels = (model, version or "")
        if labels in self._models:
            (self._success if ok else self._failure).add(labels)
            self._duration.observe(labels, seconds)
            self._seconds.observe(labels, seconds)

    def observe_queue(self, model: str, version: str | None, seconds: float) -> None:
        """How long one request waited for the model."""
        labels = (model, version or "")
        if labels in self._models:
            self._queue_seconds.observe(labels, seconds)

    def queue_counts(self, model: str, version: str | None) -> list[float]:
        """The counts of `observe_queue`, for an owner that adds to them itself: [0] is no time at all."""
        labels = (model, version or "")
        return self._queue_seconds.counts(labels) if labels in self._models else list(_UNSEEN)

    def observe_waiting(self, model: str, version: str | None, requests: int) -> None:
        """How many requests wait for the model, seen by one that joins them."""
        labels = (model, version or "")
        if labels in self._models:
            self._batch_queue.observe(labels, requests)

    def observe_batch(self, model: str, version: str | None, requests: int, rows: int) -> None:
        """One call of the model."""
        labels = (model, version or "")
        if labels in self._models:
            self._batch_requests.observe(labels, requests)
            self._batch_rows.observe(labels, rows)

    def in_flight(self, model: str, version: str | None, change: int) -> None:
        """+1 when a request starts to wait, -1 when it is answered."""
        labels = (model, version or "")
        if labels in self._models:
            self._in_flight.add(labels, change)

    def rejected(self, model: str, version: str | None, reason: str) -> None:
        """A request was refused. `reason` is one of a few fixed words, e.g. "queue_full" or "deadline"."""
        labels = (model, version or "")
        if labels in self._models:
            self._rejected.add((*labels, reason))

    def swapped(self, model: str, version: str | None, ok: bool) -> None:
        """A followed model moved to a new version, or could not."""
        labels = (model, version or "")
        if labels in self._models:
            self._swaps.add((*labels, "loaded" if ok else "failed"))

    def shadowed(self, model: str, version: str | None, outcome: str) -> None:
        """A shadow version's answer was the "same" as the caller's, "different", "failed", or was not asked for ("dropped")."""
        labels = (model, version or "")
        if labels in self._models:
            self._shadows.add((*labels, outcome))

    def looked_up(self, model: str, version: str | None, hit: bool) -> None:
        """The response cache was asked."""
        labels = (model, version or "")
        if labels in self._models:
            (self._cache_hits if hit else self._cache_misses).add(labels)

    def observe_parallel_queue(self, calls: int) -> None:
        """How many calls of a model are under way when one more is sent."""
        self._parallel_queue.observe((), calls)

    # -- front ends ----------------------------------------------------------------------------------------------------

    def rest_started(self, method: str) -> None:
        """An HTTP request came in. Each call needs one of `rest` or `rest_dropped`."""
        self._rest_open.add(_OPEN.get(method, _OPEN_OTHER))

    def rest(self, method: str, path: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `path` is the route's template, never the caller's text."""
        opened = _OPEN.get(method, _OPEN_OTHER)
        labels = (opened[0], path, str(status), APP_NAME)
        self._rest_open.add(opened, -1)
        self._rest_requests.add(labels)
        self._rest_seconds.observe(labels, seconds)

    def rest_dropped(self, method: str) -> None:
        """An HTTP request ended that is not counted: no such route, or a route that is left out."""
        self._rest_open.add(_OPEN.get(method, _OPEN_OTHER), -1)

    def grpc_started(self, kind: str, service: str, method: str) -> None:
        """An RPC came in. `kind` is UNARY or BIDI_STREAMING; `service` and `method` are registered ones."""
        self._grpc_started.add((kind, service, method))

    def grpc_received(self, kind: str, service: str, method: str) -> None:
        self._grpc_received.add((kind, service, method))

    def grpc_sent(self, kind: str, service: str, method: str) -> None:
        self._grpc_sent.add((kind, service, method))

    def grpc(self, rpc: tuple[str, str, str], code: str, seconds: float) -> None:
        """An RPC ended, in whatever way. `rpc` is its kind, service and method."""
        self._grpc_handled.add((*rpc, code))
        self._grpc_seconds.observe(rpc, seconds)

    # -- the page ------------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """The families as prometheus_client wants them."""
        for metric in self._all():
            yield metric.family()

    # -- other processes -----------------------------------------------------------------------------------------------

    def export(self) -> dict[str, list[Any]]:
        """All counts, for another process: name -> pairs of labels and value."""
        return {
            metric.name: [[labels, value] for labels, value in metric.values.items()]
            for metric in self._all()
        }

    def absorb(self, export: Mapping[str, Sequence[Any]], ended: bool = False) -> None:
        """Add what another process counted; of one that has `ended`, nothing is under way any more."""
        for metric in self._all():
            if ended and isinstance(metric, Gauge):
                continue
            for labels, value in export.get(metric.name, ()):
                metric.absorb(tuple(labels), value)

    def with_others(self, exports: Sequence[Mapping[str, Sequence[Any]]]) -> ServerMetrics:
        """The sum of these and other processes' metrics, for the models that are counted here."""
        sums = ServerMetrics(self._rest_prefix)
        for export in (self.export(), *exports):
            sums.absorb(export)
        for metric in (*sums._of_models(), *sums._by_outcome()):
            for labels in [labels for labels in metric.values if labels[:2] not in self._models]:
                metric.remove(labels)
        return sums

    def _all(self) -> tuple[Counter | Gauge | Summary | Histogram, ...]:
        return (
            *self._of_models(),
            *self._by_outcome(),
            self._parallel_queue,
            *self._of_front_ends(),
        )

    def _of_models(self) -> tuple[Counter | Gauge | Summary | Histogram, ...]:
        counts = (
            self._success,
            self._failure,
            self._in_flight,
            self._cache_hits,
            self._cache_misses,
        )
        times = (self._duration, self._seconds, self._queue_seconds)
        return (*counts, *times, self._batch_requests, self._batch_rows, self._batch_queue)

    def _by_outcome(self) -> tuple[Counter, ...]:
        return self._rejected, self._swaps, self._shadows

    def _of_front_ends(self) -> tuple[Counter | Gauge | Histogram, ...]:
        rest = (self._rest_requests, self._rest_seconds, self._rest_open)
        grpc = (
            self._grpc_started,
            self._grpc_handled,
            self._grpc_received,
            self._grpc_sent,
            self._grpc_seconds,
        )
        return (*rest, *grpc)
