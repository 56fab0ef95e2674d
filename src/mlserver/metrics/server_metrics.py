"""The server's own metrics: inference by model, HTTP requests by route, RPCs by method.

Metrics of models are in `model_metrics`. Call all methods in the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .instruments import DURATION_BUCKETS, Counter, Gauge, Histogram, Instrument
from .model_metrics import ModelInstruments, ModelMetrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from .recent_errors import RecentErrors

APP_NAME = "mlserver"

_REST = ("method", "path", "status_code", "app_name")
_GRPC = ("grpc_type", "grpc_service", "grpc_method")
_REST_REQUESTS = (
    "HTTP requests to known paths but health checks; 499 = the client disconnected before the "
    "response"
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
# HTTP method -> labels of the requests in progress. Unknown methods share one series.
_IN_PROGRESS = {method: (method, APP_NAME) for method in _METHODS}
_IN_PROGRESS_OTHER = ("OTHER", APP_NAME)


class ServerMetrics:
    """The metrics of one process.

    Args:
        rest_prefix: First part of the names of the REST metrics (setting
            `metrics_rest_server_prefix`).
    """

    def __init__(self, rest_prefix: str = "rest_server") -> None:
        self._rest_prefix = rest_prefix
        self._models = ModelInstruments()

        self._rest_requests = Counter(f"{rest_prefix}_requests", _REST_REQUESTS, _REST)
        self._rest_seconds = Histogram(
            f"{rest_prefix}_request_duration_seconds",
            "Duration of HTTP requests in seconds",
            _REST,
            DURATION_BUCKETS,
        )
        self._rest_open = Gauge(
            f"{rest_prefix}_requests_in_progress",
            "HTTP requests in progress",
            ("method", "app_name"),
        )

        self._grpc_started = Counter("grpc_server_started", "RPCs started", _GRPC)
        self._grpc_handled = Counter(
            "grpc_server_handled", "RPCs completed, by status code", (*_GRPC, "grpc_code")
        )
        self._grpc_received = Counter("grpc_server_msg_received", "Messages received", _GRPC)
        self._grpc_sent = Counter("grpc_server_msg_sent", "Messages sent", _GRPC)
        self._grpc_seconds = Histogram(
            "grpc_server_handling_seconds", "Duration of RPCs in seconds", _GRPC, DURATION_BUCKETS
        )

    # -- models --

    @property
    def errors(self) -> RecentErrors:
        """The most recent error responses of this process."""
        return self._models.errors

    @property
    def models(self) -> ModelInstruments:
        """The instruments of the models, to read them."""
        return self._models

    def for_model(self, model: str, version: str | None) -> ModelMetrics:
        """Return a recorder for one model version.

        It adds to series while the model is added (`add_model`).
        """
        return ModelMetrics(self._models, model, version)

    def add_model(self, model: str, version: str | None) -> None:
        """Start counting for a model. The counts of a model that exists are kept."""
        self._models.add((model, version or ""))

    def remove_model(self, model: str, version: str | None) -> None:
        """Stop counting for a model, and remove its series."""
        labels = (model, version or "")
        self._models.loaded.discard(labels)
        self._models.remove(labels)

    # -- front ends --

    def rest_started(self, method: str) -> None:
        """Record the arrival of an HTTP request. Each needs one `rest` or `rest_dropped`."""
        labels = _IN_PROGRESS.get(method, _IN_PROGRESS_OTHER)
        values = self._rest_open.values
        values[labels] = values.get(labels, 0) + 1

    def rest(self, method: str, path: str, status: int, seconds: float) -> None:
        """Record a response to an HTTP request.

        `path` is the route's template, not the client's text.
        """
        in_progress = _IN_PROGRESS.get(method, _IN_PROGRESS_OTHER)
        values = self._rest_open.values
        values[in_progress] = values.get(in_progress, 0) - 1
        labels = (in_progress[0], path, str(status), APP_NAME)
        values = self._rest_requests.values
        values[labels] = values.get(labels, 0) + 1
        histogram = self._rest_seconds
        buckets = histogram.values.get(labels) or histogram.counts(labels)
        buckets[bisect_left(DURATION_BUCKETS, seconds)] += 1
        buckets[-1] += seconds

    def rest_dropped(self, method: str) -> None:
        """Record the end of an HTTP request whose route is unknown or excluded from metrics."""
        self._rest_open.add(_IN_PROGRESS.get(method, _IN_PROGRESS_OTHER), -1)

    def grpc_started(self, kind: str, service: str, method: str) -> None:
        """Record the start of an RPC.

        `kind` is UNARY or BIDI_STREAMING; `service` and `method` are registered names.
        """
        self._grpc_started.add((kind, service, method))

    def grpc_received(self, kind: str, service: str, method: str) -> None:
        self._grpc_received.add((kind, service, method))

    def grpc_sent(self, kind: str, service: str, method: str) -> None:
        self._grpc_sent.add((kind, service, method))

    def grpc(self, rpc: tuple[str, str, str], code: str, seconds: float) -> None:
        """Record the end of an RPC, whatever its status. `rpc` is its kind, service and method."""
        self._grpc_handled.add((*rpc, code))
        self._grpc_seconds.observe(rpc, seconds)

    # -- the metrics page and other processes --

    def collect(self) -> Iterator[Metric]:
        """Yield prometheus_client's metric families."""
        for instrument in self.instruments():
            yield instrument.family()

    def export(self) -> dict[str, list[Any]]:
        """Return all values, for another process: name -> pairs of labels and value."""
        exported: dict[str, list[Any]] = {}
        for instrument in self.instruments():
            # A copy first: the payload log's threads add keys.
            items = list(instrument.values.items())
            exported[instrument.name] = [list(item) for item in items]
        return exported

    def absorb(self, export: Mapping[str, Sequence[Any]], ended: bool = False) -> None:
        """Add the values of another process.

        Gauges of one that has `ended` are left out: nothing is in flight there.
        """
        for instrument in self.instruments():
            if ended and isinstance(instrument, Gauge):
                continue
            for labels, value in export.get(instrument.name, ()):
                instrument.absorb(tuple(labels), value)

    def with_others(self, exports: Sequence[Mapping[str, Sequence[Any]]]) -> ServerMetrics:
        """Return the sum of these and other processes' metrics, for models loaded here."""
        sums = ServerMetrics(self._rest_prefix)
        for export in (self.export(), *exports):
            sums.absorb(export)
        models, loaded = sums._models, self._models.loaded
        for instrument in (*models.by_model(), *models.by_outcome()):
            for labels in [labels for labels in instrument.values if labels[:2] not in loaded]:
                instrument.remove(labels)
        return sums

    def instruments(self) -> tuple[Instrument, ...]:
        """Return all instruments, those of models first."""
        rest = (self._rest_requests, self._rest_seconds, self._rest_open)
        grpc_messages = (self._grpc_received, self._grpc_sent)
        grpc_calls = (self._grpc_started, self._grpc_handled, self._grpc_seconds)
        return (*self._models.all(), *rest, *grpc_calls, *grpc_messages)
