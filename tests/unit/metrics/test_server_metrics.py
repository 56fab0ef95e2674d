"""The server's own metrics: published names and labels; series of loaded models only."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from mlserver.errors import MLServerError
from mlserver.metrics import ServerMetrics
from mlserver.metrics.model_metrics import ModelMetrics
from mlserver.pipeline import Timings

INFER = "/v2/models/{model_name}/infer"
REST = {"method": "POST", "path": INFER, "status_code": "200", "app_name": "mlserver"}
RPC = ("UNARY", "inference.GRPCInferenceService", "ModelInfer")
GRPC = dict(zip(("grpc_type", "grpc_service", "grpc_method"), RPC, strict=True))
WINE = {"model": "wine", "version": "2"}


class View:
    """The metrics as Prometheus reads them."""

    def __init__(self, metrics: ServerMetrics) -> None:
        class Source(Collector):
            def collect(self) -> Any:
                return metrics.collect()

        self.registry = CollectorRegistry()
        self.registry.register(Source())

    def __call__(self, series: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(series, labels)

    def names(self) -> dict[str, str]:
        return {family.name: family.type for family in self.registry.collect()}

    def labelled(self, **labels: str) -> list[str]:
        return [
            sample.name
            for family in self.registry.collect()
            for sample in family.samples
            if labels.items() <= sample.labels.items()
        ]


def wine() -> ServerMetrics:
    metrics = ServerMetrics()
    metrics.add_model("wine", "2")
    return metrics


def test_names_and_kinds() -> None:
    assert View(ServerMetrics()).names() == {
        "model_infer_request_success": "counter",
        "model_infer_request_failure": "counter",
        "model_infer_request_duration": "summary",
        "model_infer_request_duration_seconds": "histogram",
        "model_infer_queue_duration_seconds": "histogram",
        "model_infer_batch_requests": "histogram",
        "model_infer_batch_rows": "histogram",
        "model_infer_requests_in_flight": "gauge",
        "model_infer_cache_hits": "counter",
        "model_infer_cache_misses": "counter",
        "model_infer_requests_rejected": "counter",
        "model_swaps": "counter",
        "model_load_failures": "counter",
        "model_load_seconds": "histogram",
        "model_shadow_requests": "counter",
        "mlserver_payload_log_events": "counter",
        "mlserver_payload_log_dropped": "counter",
        "batch_request_queue": "histogram",
        "parallel_request_queue": "histogram",
        "rest_server_requests": "counter",
        "rest_server_request_duration_seconds": "histogram",
        "rest_server_requests_in_progress": "gauge",
        "grpc_server_started": "counter",
        "grpc_server_handled": "counter",
        "grpc_server_msg_received": "counter",
        "grpc_server_msg_sent": "counter",
        "grpc_server_handling_seconds": "histogram",
    }


def test_inference() -> None:
    metrics = wine()
    wine_metrics = metrics.for_model("wine", "2")
    wine_metrics.request_finished(Timings(), 500_000_000)
    wine_metrics.request_finished(Timings(), 250_000_000)
    wine_metrics.request_finished(Timings(), 8_000_000_000, MLServerError("?"))
    wine_metrics.request_finished(Timings(), 9_000_000_000, asyncio.CancelledError())
    view = View(metrics)
    assert view("model_infer_request_success_total", **WINE) == 2
    assert view("model_infer_request_failure_total", **WINE) == 1
    assert view("model_infer_request_duration_count", **WINE) == 3
    assert view("model_infer_request_duration_sum", **WINE) == 8.75
    buckets = [
        view("model_infer_request_duration_seconds_bucket", le=le, **WINE)
        for le in ("0.1", "0.5", "+Inf")
    ]
    assert buckets == [0, 2, 3]


def test_queue_batches_and_rejections() -> None:
    metrics = wine()
    wine_metrics = metrics.for_model("wine", "2")
    for _ in range(3):
        wine_metrics.request_started()
    wine_metrics.request_finished(Timings(), 1)
    wine_metrics.request_finished(Timings(), 1, asyncio.CancelledError())
    wine_metrics.run_started(4, (0.0, 0.006))
    wine_metrics.request_queued(3)
    wine_metrics.run_finished(2, 40, 0.1)
    wine_metrics.request_rejected("queue_full")
    view = View(metrics)
    assert view("model_infer_requests_in_flight", **WINE) == 1
    assert view("model_infer_queue_duration_seconds_count", **WINE) == 2
    assert view("model_infer_queue_duration_seconds_sum", **WINE) == 0.006
    assert view("model_infer_queue_duration_seconds_bucket", le="0.005", **WINE) == 1
    assert view("batch_request_queue_sum", model_name="wine", model_version="2") == 3
    assert view("model_infer_batch_requests_sum", **WINE) == 2
    assert view("model_infer_batch_rows_bucket", le="32.0", **WINE) == 0
    assert view("model_infer_batch_rows_bucket", le="64.0", **WINE) == 1
    assert view("model_infer_requests_rejected_total", reason="queue_full", **WINE) == 1
    assert view("parallel_request_queue_bucket", le="2.0") == 0
    assert view("parallel_request_queue_bucket", le="4.0") == 1
    assert view("parallel_request_queue_sum") == 4


def record_everything(model: ModelMetrics) -> None:
    model.request_started()
    model.request_queued(1)
    model.request_rejected("deadline")
    model.run_started(0, (1.0,))
    model.run_finished(1, 1, 1.0)
    model.request_finished(Timings(), 1)
    model.request_finished(Timings(), 1, ValueError())
    model.cache_lookup(True, 1)
    model.cache_lookup(False, 1)
    model.shadowed("same")
    model.swapped(True)
    model.payload_logged()
    model.payload_dropped("queue_full")


def test_models_that_are_not_loaded_have_no_series() -> None:
    metrics = wine()
    for model, version in (("none", None), ("wine", None), ("wine", "3")):
        record_everything(metrics.for_model(model, version))
    assert View(metrics).labelled(model="none") == []
    assert View(metrics).labelled(model="wine", version="") == []
    assert View(metrics).labelled(model="wine", version="3") == []


def test_counters_start_at_zero() -> None:
    """Prometheus' `increase` does not see the first event of a series that begins with it."""
    view = View(wine())
    assert view("model_infer_request_failure_total", **WINE) == 0
    assert view("model_load_failures_total", **WINE) == 0
    assert view("model_infer_requests_rejected_total", reason="queue_full", **WINE) == 0


def test_a_model_without_a_version() -> None:
    metrics = ServerMetrics()
    metrics.add_model("plain", None)
    metrics.for_model("plain", None).request_finished(Timings(), 1)
    assert View(metrics)("model_infer_request_success_total", model="plain", version="") == 1


def test_removing_a_model_removes_its_series_and_no_others() -> None:
    metrics = wine()
    metrics.add_model("wine", "1")
    for version in ("1", "2"):
        record_everything(metrics.for_model("wine", version))
    assert len(set(View(metrics).labelled(**WINE))) > 10
    metrics.remove_model("wine", "2")
    assert View(metrics).labelled(**WINE) == []
    assert View(metrics).labelled(model_version="2") == []
    assert View(metrics).labelled(model="wine", version="1")
    record_everything(metrics.for_model("wine", "2"))
    assert View(metrics).labelled(**WINE) == []


def test_loading_again_keeps_the_counts() -> None:
    metrics = wine()
    metrics.for_model("wine", "2").request_finished(Timings(), 1)
    metrics.add_model("wine", "2")
    assert View(metrics)("model_infer_request_success_total", **WINE) == 1


def test_rest() -> None:
    metrics = ServerMetrics()
    view = View(metrics)
    for _ in range(3):
        metrics.rest_started("POST")
    metrics.rest("POST", INFER, 200, 0.02)
    metrics.rest_dropped("POST")
    assert view("rest_server_requests_total", **REST) == 1
    assert view("rest_server_request_duration_seconds_bucket", le="0.025", **REST) == 1
    assert view("rest_server_requests_in_progress", method="POST", app_name="mlserver") == 1


def test_rest_with_another_prefix_and_unknown_methods() -> None:
    metrics = ServerMetrics("mine")
    for method in ("BREW", "WHEN"):
        metrics.rest_started(method)
        metrics.rest(method, "/x", 405, 0.1)
    labels = {"method": "OTHER", "path": "/x", "status_code": "405", "app_name": "mlserver"}
    assert View(metrics)("mine_requests_total", **labels) == 2
    assert View(metrics)("mine_requests_in_progress", method="OTHER", app_name="mlserver") == 0


def test_grpc() -> None:
    metrics = ServerMetrics()
    metrics.grpc_started(*RPC)
    metrics.grpc_received(*RPC)
    metrics.grpc_sent(*RPC)
    metrics.grpc(RPC, "OK", 0.2)
    view = View(metrics)
    for series in ("started", "msg_received", "msg_sent"):
        assert view(f"grpc_server_{series}_total", **GRPC) == 1
    assert view("grpc_server_handled_total", grpc_code="OK", **GRPC) == 1
    assert view("grpc_server_handling_seconds_sum", **GRPC) == 0.2


def recorded(requests: int) -> ServerMetrics:
    """Return the metrics of a process that answered so many requests and runs another one."""
    metrics = wine()
    wine_metrics = metrics.for_model("wine", "2")
    for _ in range(requests):
        wine_metrics.request_started()
        wine_metrics.request_finished(Timings(), 100_000_000)
        metrics.rest("POST", INFER, 200, 0.1)
    wine_metrics.request_started()
    wine_metrics.request_rejected("deadline")
    return metrics


def test_the_sum_of_several_processes() -> None:
    own = recorded(1)
    view = View(own.with_others([recorded(2).export(), recorded(3).export()]))

    assert view("model_infer_request_success_total", **WINE) == 6
    assert view("model_infer_request_duration_count", **WINE) == 6
    assert view("model_infer_request_duration_seconds_bucket", **WINE, le="0.1") == 6
    assert view("model_infer_requests_in_flight", **WINE) == 3
    assert view("model_infer_requests_rejected_total", **WINE, reason="deadline") == 3
    assert view("rest_server_requests_total", **REST) == 6
    assert View(own)("model_infer_request_success_total", **WINE) == 1


def test_the_sum_has_loaded_models_only() -> None:
    other = recorded(2)
    assert View(ServerMetrics().with_others([other.export()])).labelled(**WINE) == []


def test_gauges_of_an_ended_process_are_left_out() -> None:
    past = ServerMetrics()
    past.absorb(recorded(2).export(), ended=True)
    view = View(wine().with_others([past.export()]))

    assert view("model_infer_request_success_total", **WINE) == 2
    assert view("model_infer_requests_in_flight", **WINE) == 0
