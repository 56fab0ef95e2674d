"""Tracing.

The client's trace continues over REST and gRPC, through queue and worker, into the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.collector import Collector, HTTPCollector
from support.engines import RAY_ENGINE
from support.models import WINE, Models
from support.repository import tensor, write_model, write_settings
from support.server import Serve, Server, run_mlserver
from support.slow import slow

TRACES = """
from opentelemetry import trace

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

tracer = trace.get_tracer("the model")


class Traces(MLModel):
    async def predict(self, payload):
        with tracer.start_as_current_span("own work"):
            if payload.inputs[0].shape == [2]:
                raise ValueError("two are too many")
            return InferenceResponse(model_name=self.name, outputs=[
                ResponseOutput(name="y", shape=[1], datatype="FP32", data=[1.0])
            ])
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# Names of MLServer 1.x.
REST_SPAN = "POST /v2/models/{model_name}/infer"
GRPC_SPAN = "/inference.GRPCInferenceService/ModelInfer"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.mark.parametrize("workers", [slow(0), 1, RAY_ENGINE])
@pytest.mark.parametrize("batched", [slow(False), True])
def test_a_request_over_rest(
    serve: Serve, collector: Collector, tmp_path: Path, workers: int, batched: bool
) -> None:
    settings: dict[str, Any] = {"max_batch_size": 4, "max_batch_time": 0.01} if batched else {}
    write_model(tmp_path / "m", "Traces", source=TRACES, parameters={"version": "1"}, **settings)
    env = {"MLSERVER_TRACING_SERVER": collector.address, "MLSERVER_SERVER_NAME": "tested"}
    server = serve(tmp_path, workers=workers, env=env)
    assert server.infer("m", [tensor("x", [1])], id="mine").status_code == 200
    assert server.infer("m", [tensor("x", [1])], id="mine").status_code == 200
    assert server.post(
        "/v2/models/m/infer", {"inputs": [tensor("x", [1])], "id": "mine"}, headers=HEADERS
    ).is_success
    assert server.stop() == 0

    spans = collector.spans()
    assert set(spans) == {REST_SPAN, "batch", "model", "own work"} | (
        {"queue"} if batched else set()
    )
    request, batch, model = spans[REST_SPAN], spans["batch"], spans["model"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert batch.parent_span_id == request.span_id
    assert model.parent_span_id == batch.span_id
    assert spans["own work"].parent_span_id == request.span_id
    for part in ("batch", "model", *(["queue"] if batched else [])):
        assert (
            request.start_time_unix_nano
            <= spans[part].start_time_unix_nano
            <= spans[part].end_time_unix_nano
        )
    attributes = {attribute.key: attribute.value.string_value for attribute in request.attributes}
    assert attributes == {
        "mlserver.model.name": "m",
        "mlserver.model.version": "1",
        "mlserver.request.id": "mine",
    }
    assert all(resource["service.name"] == "tested" for resource in collector.resources())


def test_a_request_over_grpc(serve: Serve, collector: Collector, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES)
    server = serve(tmp_path, workers=1, env={"MLSERVER_TRACING_SERVER": collector.address})
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        contents = pb.InferTensorContents(fp32_contents=[1.0])
        input_tensor = pb.ModelInferRequest.InferInputTensor(
            name="x", datatype="FP32", shape=[1], contents=contents
        )
        request = pb.ModelInferRequest(model_name="m", inputs=[input_tensor])
        GRPCInferenceServiceStub(channel).ModelInfer(
            request, metadata=tuple(HEADERS.items()), timeout=30
        )
    assert server.stop() == 0
    assert collector.spans()[GRPC_SPAN].parent_span_id.hex() == PARENT
    assert collector.spans()["own work"].trace_id.hex() == TRACE


def test_errors_and_health(collector: Collector, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES)
    with Server(
        tmp_path, workers=1, env={"MLSERVER_TRACING_SERVER": collector.address}, tracebacks=True
    ) as server:
        assert server.infer("m", [tensor("x", [1, 2])]).status_code == 500
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"):
            server.get(path)
        server.stop()
        spans = collector.spans()
        assert set(spans) == {REST_SPAN, "own work"}
        assert "ValueError: two are too many" in spans[REST_SPAN].status.message


def test_an_unreachable_collector_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES)
    server = serve(tmp_path, workers=1, env={"MLSERVER_TRACING_SERVER": "http://127.0.0.1:9"})
    assert server.infer("m", [tensor("x", [1])]).status_code == 200
    assert server.stop() == 0
    server.wait_for_line("the collector http://127.0.0.1:9 did not take the last spans within")


@pytest.mark.slow
def test_names_of_spans(serve: Serve, collector: Collector, models: Models, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES, parameters={"version": "1"})
    write_settings(
        tmp_path / "wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters={"uri": str(models["wine"])},
    )
    server = serve(tmp_path, workers=1, env={"MLSERVER_TRACING_SERVER": collector.address})
    for path in ("infer", "generate", "infer_stream", "generate_stream", "versions/1/infer"):
        assert (
            server.post(f"/v2/models/m/{path}", {"inputs": [tensor("x", [1])]}).status_code == 200
        )
    assert server.post("/invocations", {"dataframe_records": [WINE]}).status_code == 200
    assert server.stop() == 0
    prefix = "POST /v2/models/{model_name}"
    expected = {
        f"{prefix}/{path}" for path in ("infer", "generate", "infer_stream", "generate_stream")
    }
    expected |= {f"{prefix}/versions/{{model_version}}/infer", "POST /invocations"}
    assert set(collector.spans()) == expected | {"batch", "model", "own work"}


@pytest.mark.parametrize("kind", [slow(Collector), HTTPCollector])
@pytest.mark.parametrize("by_setting", [True, slow(False)], ids=["setting", "variable"])
def test_the_standard_variables(
    serve: Serve, tmp_path: Path, kind: type[Collector], by_setting: bool
) -> None:
    """Both protocols, the address, headers, resource and sampler of `OTEL_...` variables."""
    write_model(tmp_path / "m", "Traces", source=TRACES)
    with kind() as collector:
        protocol = "http/protobuf" if kind is HTTPCollector else "grpc"
        address = "MLSERVER_TRACING_SERVER" if by_setting else "OTEL_EXPORTER_OTLP_ENDPOINT"
        env = {
            address: collector.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ours",
            "OTEL_SERVICE_NAME": "named",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        server = serve(tmp_path, workers=1, env=env)
        assert server.infer("m", [tensor("x", [1])]).status_code == 200  # is not sampled
        body = {"inputs": [tensor("x", [1])]}
        assert server.post("/v2/models/m/infer", body, headers=HEADERS).is_success
        assert server.stop() == 0
        assert set(collector.spans()) == {REST_SPAN, "batch", "model", "own work"}
        assert {span.trace_id.hex() for span in collector.spans().values()} == {TRACE}
        for resource in collector.resources():
            assert resource["service.name"] == "named"
            assert resource["deployment.environment"] == "test"
            assert resource["service.version"]
        if isinstance(collector, HTTPCollector):
            assert collector.headers["x-tenant"] == "ours"


def test_an_unknown_protocol_is_an_error(tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES)
    env = {"MLSERVER_TRACING_SERVER": "127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    code, text = run_mlserver("start", str(tmp_path), env=env)
    assert code == 2
    expected = (
        "OTEL_EXPORTER_OTLP_PROTOCOL: expected 'grpc' or 'http/protobuf', received 'http/json'"
    )
    assert expected in text


@pytest.mark.parametrize(
    "variable", [{"OTEL_SDK_DISABLED": "true"}, slow({"OTEL_TRACES_EXPORTER": "none"})]
)
def test_variables_turn_tracing_off(
    serve: Serve, collector: Collector, tmp_path: Path, variable: dict[str, str]
) -> None:
    write_model(tmp_path / "m", "Traces", source=TRACES)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, **variable}
    server = serve(tmp_path, workers=0, env=env)
    assert server.infer("m", [tensor("x", [1])]).status_code == 200
    assert server.stop() == 0
    assert collector.spans() == {}
