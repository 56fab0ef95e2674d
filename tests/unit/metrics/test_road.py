"""The server's own metrics: names and labels as published, bounded by what is loaded."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from mlserver.metrics import ServerMetrics

INFER = "/v2/models/{model_name}/infer"
REST = {"method": "POST", "path": INFER, "status_code": "200", "app_name": "mlserver"}
RPC = ("UNARY", "inference.GRPCInferenceService", "ModelInfer")
GRPC = dict(zip(("grpc_type", "grpc_service", "grpc_method"), RPC, strict=True))
WINE = {"model": "wine", "version": "2"}


class View:
    """What Prometheus would read."""

    def __init__(self, pipeline: ServerMetrics) -> None:
        class Source(Collector):
            def collect(self) -> Any:
                return pipeline.collect()

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
    pipeline = ServerMetrics()
    pipeline.add_model("wine", "2")
    return pipeline


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
        "model_shadow_requests": "counter",
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
    pipeline = wine()
    pipeline.observe_infer("wine", "2", 0.5, ok=True)
    pipeline.observe_infer("wine", "2", 0.25, ok=True)
    pipeline.observe_infer("wine", "2", 8, ok=False)
    view = View(pipeline)
    assert view("model_infer_request_success_total", **WINE) == 2
    assert view("model_infer_request_failure_total", **WINE) == 1
    assert view("model_infer_request_duration_count", **WINE) == 3
    assert view("model_infer_request_duration_sum", **WINE) == 8.75
    buckets = [
        view("model_infer_request_duration_seconds_bucket", le=le, **WINE)
        for le in ("0.1", "0.5", "+Inf")
    ]
    assert buckets == [0, 2, 3]


def test_queue_batches_and_refusals() -> None:
    pipeline = wine()
    pipeline.in_flight("wine", "2", +1)
    pipeline.in_flight("wine", "2", +1)
    pipeline.in_flight("wine", "2", -1)
    pipeline.observe_queue("wine", "2", 0.001)
    pipeline.observe_waiting("wine", "2", 3)
    pipeline.observe_batch("wine", "2", 2, 40)
    pipeline.rejected("wine", "2", "queue_full")
    pipeline.observe_parallel_queue(1)
    view = View(pipeline)
    assert view("model_infer_requests_in_flight", **WINE) == 1
    assert view("model_infer_queue_duration_seconds_count", **WINE) == 1
    assert view("batch_request_queue_sum", model_name="wine", model_version="2") == 3
    assert view("model_infer_batch_requests_sum", **WINE) == 2
    assert view("model_infer_batch_rows_bucket", le="32.0", **WINE) == 0
    assert view("model_infer_batch_rows_bucket", le="64.0", **WINE) == 1
    assert view("model_infer_requests_rejected_total", reason="queue_full", **WINE) == 1
    assert view("parallel_request_queue_count") == 1


def observe_everything(pipeline: ServerMetrics, model: str, version: str | None) -> None:
    pipeline.observe_infer(model, version, 1, ok=True)
    pipeline.observe_infer(model, version, 1, ok=False)
    pipeline.observe_queue(model, version, 1)
    pipeline.observe_waiting(model, version, 1)
    pipeline.observe_batch(model, version, 1, 1)
    pipeline.in_flight(model, version, 1)
    pipeline.rejected(model, version, "deadline")


def test_models_that_are_not_loaded_make_no_series() -> None:
    pipeline = wine()
    for model, version in (("none", None), ("wine", None), ("wine", "3")):
        observe_everything(pipeline, model, version)
    assert View(pipeline).labelled(model="none") == []
    assert View(pipeline).labelled(model="wine") == []


def test_a_model_without_a_version() -> None:
    pipeline = ServerMetrics()
    pipeline.add_model("plain", None)
    pipeline.observe_infer("plain", None, 1, ok=True)
    assert View(pipeline)("model_infer_request_success_total", model="plain", version="") == 1


def test_the_series_of_a_model_go_with_it_and_with_it_alone() -> None:
    pipeline = wine()
    pipeline.add_model("wine", "1")
    for version in ("1", "2"):
        observe_everything(pipeline, "wine", version)
    assert len(set(View(pipeline).labelled(**WINE))) > 10
    pipeline.remove_model("wine", "2")
    assert View(pipeline).labelled(**WINE) == []
    assert View(pipeline).labelled(model_version="2") == []
    assert View(pipeline).labelled(model="wine", version="1")
    observe_everything(pipeline, "wine", "2")
    assert View(pipeline).labelled(**WINE) == []


def test_loading_again_keeps_the_counts() -> None:
    pipeline = wine()
    pipeline.observe_infer("wine", "2", 1, ok=True)
    pipeline.add_model("wine", "2")
    assert View(pipeline)("model_infer_request_success_total", **WINE) == 1


def test_rest() -> None:
    pipeline = ServerMetrics()
    view = View(pipeline)
    for _ in range(3):
        pipeline.rest_started("POST")
    pipeline.rest("POST", INFER, 200, 0.02)
    pipeline.rest_dropped("POST")
    assert view("rest_server_requests_total", **REST) == 1
    assert view("rest_server_request_duration_seconds_bucket", le="0.025", **REST) == 1
    assert view("rest_server_requests_in_progress", method="POST", app_name="mlserver") == 1


def test_rest_with_another_prefix_and_made_up_methods() -> None:
    pipeline = ServerMetrics("mine")
    for method in ("BREW", "WHEN"):
        pipeline.rest_started(method)
        pipeline.rest(method, "/x", 405, 0.1)
    labels = {"method": "OTHER", "path": "/x", "status_code": "405", "app_name": "mlserver"}
    assert View(pipeline)("mine_requests_total", **labels) == 2
    assert View(pipeline)("mine_requests_in_progress", method="OTHER", app_name="mlserver") == 0


def test_grpc() -> None:
    pipeline = ServerMetrics()
    pipeline.grpc_started(*RPC)
    pipeline.grpc_received(*RPC)
    pipeline.grpc_sent(*RPC)
    pipeline.grpc(RPC, "OK", 0.2)
    view = View(pipeline)
    for series in ("started", "msg_received", "msg_sent"):
        assert view(f"grpc_server_{series}_total", **GRPC) == 1
    assert view("grpc_server_handled_total", grpc_code="OK", **GRPC) == 1
    assert view("grpc_server_handling_seconds_sum", **GRPC) == 0.2


def counted(requests: int) -> ServerMetrics:
    """Another process that answered so many requests, and works on one more."""
    pipeline = wine()
    for _ in range(requests):
        pipeline.observe_infer("wine", "2", 0.1, ok=True)
        pipeline.rest("POST", INFER, 200, 0.1)
    pipeline.in_flight("wine", "2", 1)
    pipeline.rejected("wine", "2", "deadline")
    return pipeline


def test_the_sum_of_several_processes() -> None:
    own = counted(1)
    view = View(own.with_others([counted(2).export(), counted(3).export()]))

    assert view("model_infer_request_success_total", **WINE) == 6
    assert view("model_infer_request_duration_count", **WINE) == 6
    assert view("model_infer_request_duration_seconds_bucket", **WINE, le="0.1") == 6
    assert view("model_infer_requests_in_flight", **WINE) == 3
    assert view("model_infer_requests_rejected_total", **WINE, reason="deadline") == 3
    assert view("rest_server_requests_total", **REST) == 6
    assert View(own)("model_infer_request_success_total", **WINE) == 1


def test_the_sum_has_only_models_that_are_there() -> None:
    other = counted(2)
    assert View(ServerMetrics().with_others([other.export()])).labelled(**WINE) == []


def test_what_a_process_counted_that_has_ended() -> None:
    past = ServerMetrics()
    past.absorb(counted(2).export(), ended=True)
    view = View(wine().with_others([past.export()]))

    assert view("model_infer_request_success_total", **WINE) == 2
    assert view("model_infer_requests_in_flight", **WINE) is None
