"""The access log as JSON, and the ids in the log lines of a request, over each protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from support.plain_model import open_stub, write_message
from support.repository import tensor, write_model, write_server_settings
from support.server import Server

pytest.importorskip("confluent_kafka")

from support.kafka import Cluster

SAYS = """
import logging

from mlserver import MLModel
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse, ResponseOutput

logger = logging.getLogger("mlserver.says")


class Says(MLModel):
    def predict(self, payload):
        logger.info("predicts")
        return self.answer(payload)

    def answer(self, payload):
        first = payload.inputs[0]
        output = ResponseOutput(
            name="y", shape=first.shape, datatype=first.datatype, data=first.data
        )
        return InferenceResponse(model_name=self.name, outputs=[output])

    def predict_stream(self, payloads):
        for payload in payloads:
            logger.info("streams")
            yield self.answer(payload)

    @custom_handler("/say")
    def say(self) -> str:
        logger.info("handles")
        return "said"
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE_PARENT = f"00-{TRACE}-{SPAN}-01"
INPUTS = [tensor("x", [1.0])]
FIELDS = {
    "time",
    "name",
    "level",
    "message",
    "event",
    "protocol",
    "method",
    "path",
    "status",
    "duration_ms",
    "model",
    "version",
    "request_id",
    "trace_id",
    "span_id",
    "bytes_in",
    "bytes_out",
}


class LoggedServer(Server):
    """A server whose log has one JSON object per line, and its Kafka cluster."""

    cluster: Cluster

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines with these values."""
        texts = [text for text in str(self.log).splitlines() if text.startswith("{")]
        lines = [json.loads(text) for text in texts]
        return [line for line in lines if fields.items() <= line.items()]

    def line(self, **fields: Any) -> dict[str, Any]:
        """Wait for the one line with these values."""
        self.wait(lambda: bool(self.lines(**fields)), f"a line with {fields}")
        (line,) = self.lines(**fields)
        return line


@pytest.fixture(scope="module", params=[0, 1], ids=["in-process", "worker"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoggedServer]:
    folder = tmp_path_factory.mktemp("logged")
    write_model(folder / "says", "Says", source=SAYS, parameters={"version": "v1"})
    batching = {"max_batch_size": 2, "max_batch_time": 30.0}
    write_model(folder / "joins", "Says", source=SAYS, **batching)
    with Cluster() as cluster:
        kafka = {"kafka_enabled": True, "kafka_servers": cluster.servers}
        write_server_settings(folder, access_log=True, use_structured_logging=True, **kafka)
        with LoggedServer(folder, workers=request.param) as running:
            running.cluster = cluster
            yield running


def test_a_rest_request(server: LoggedServer) -> None:
    headers = {"x-request-id": "rest-1", "traceparent": TRACE_PARENT}
    response = server.post("/v2/models/says/infer", {"inputs": INPUTS}, headers=headers)
    assert response.json()["id"] == "rest-1"
    assert response.headers["x-request-id"] == response.headers["ce-id"] == "rest-1"
    line = server.line(event="request", request_id="rest-1")
    assert set(line) == FIELDS
    assert (line["protocol"], line["method"], line["status"]) == ("rest", "POST", 200)
    assert line["path"] == "/v2/models/says/infer"
    assert (line["model"], line["version"]) == ("says", "v1")
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)
    assert 0 < line["duration_ms"] < 60_000
    assert line["bytes_in"] == int(response.request.headers["content-length"])
    assert line["bytes_out"] == int(response.headers["content-length"])
    spoken = server.line(message="predicts", request_id="rest-1")
    assert (spoken["trace_id"], spoken["span_id"], spoken["model_name"]) == (TRACE, SPAN, "says")


def test_the_id_of_a_body_precedes_those_of_headers(server: LoggedServer) -> None:
    headers = {"x-request-id": "header-2", "ce-id": "event-2"}
    body = {"inputs": INPUTS, "id": "body-2"}
    response = server.post("/v2/models/says/infer", body, headers=headers)
    assert response.json()["id"] == "body-2"
    assert response.headers["x-request-id"] == "header-2"
    assert server.line(event="request", request_id="body-2")["trace_id"] is None
    response = server.post("/v2/models/says/infer", {"inputs": INPUTS}, headers={"ce-id": "e-2"})
    assert response.json()["id"] == response.headers["ce-id"] == "e-2"
    assert "x-request-id" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": "ü"},
        {"x-request-id": "x" * 2000},
        {"traceparent": "00-0-0-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
    ],
)
def test_headers_that_are_no_ids_are_ignored(server: LoggedServer, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    response = server.post("/v2/models/says/infer", {"inputs": INPUTS}, headers=raw)
    assert len(response.json()["id"]) == 36
    assert "x-request-id" not in response.headers
    assert server.line(event="request", request_id=response.json()["id"])["trace_id"] is None


def test_an_error_and_other_paths(server: LoggedServer) -> None:
    response = server.post("/v2/models/none/infer", {}, headers={"x-request-id": "error-3"})
    assert (response.status_code, response.headers["x-request-id"]) == (404, "error-3")
    line = server.line(event="request", request_id="error-3")
    assert (line["status"], line["model"]) == (404, "none")
    assert server.get("/v2/models/says", headers={"ce-id": "meta-3"}).headers["ce-id"] == "meta-3"
    assert server.line(event="request", request_id="meta-3")["model"] == "says"
    assert server.lines(path="/v2/health/ready") == []
    load = server.post("/v2/repository/models/says/load", headers={"x-request-id": "load-3"})
    assert load.status_code == 200
    assert server.line(event="model_loaded", request_id="load-3")["model"] == "says"


def test_a_stream_and_a_custom_handler(server: LoggedServer) -> None:
    headers = {"x-request-id": "stream-4", "traceparent": TRACE_PARENT}
    response = server.post("/v2/models/says/infer_stream", {"inputs": INPUTS}, headers=headers)
    assert response.headers["x-request-id"] == "stream-4"
    line = server.line(event="request", request_id="stream-4")
    assert line["bytes_out"] == len(response.content)
    assert server.line(message="streams", request_id="stream-4")["trace_id"] == TRACE
    response = server.post("/v2/models/says/say", headers={"x-request-id": "handler-4"})
    assert response.headers["x-request-id"] == "handler-4"
    assert server.line(message="handles", request_id="handler-4")["model_name"] == "says"
    assert server.line(event="request", request_id="handler-4")["model"] == "says"


def test_lines_of_a_batch_have_all_ids(server: LoggedServer) -> None:
    with ThreadPoolExecutor(2) as callers:
        bodies = [{"inputs": INPUTS, "id": f"joined-{number}"} for number in range(2)]
        calls = [callers.submit(server.post, "/v2/models/joins/infer", body) for body in bodies]
        assert {call.result(60).status_code for call in calls} == {200}
    line = server.line(message="predicts", model_name="joins")
    assert sorted(line["request_ids"]) == ["joined-0", "joined-1"]


def test_a_grpc_request(server: LoggedServer) -> None:
    message = write_message("says", "a")
    metadata = (("x-request-id", "grpc-5"), ("traceparent", TRACE_PARENT))
    with open_stub(server) as stub:
        response, call = stub.ModelInfer.with_call(message, metadata=metadata, timeout=60)
        assert response.id == "grpc-5"
        trailing = dict(call.trailing_metadata())
        assert trailing["x-request-id"] == trailing["ce-id"] == "grpc-5"
        line = server.line(event="request", request_id="grpc-5")
        assert set(line) == FIELDS | {"grpc_code"}
        assert (line["protocol"], line["status"], line["grpc_code"]) == ("grpc", 200, "OK")
        assert line["path"] == "/inference.GRPCInferenceService/ModelInfer"
        assert (line["model"], line["version"], line["trace_id"]) == ("says", "v1", TRACE)
        assert (line["bytes_in"], line["bytes_out"]) == (message.ByteSize(), response.ByteSize())
        assert server.line(message="predicts", request_id="grpc-5")["trace_id"] == TRACE
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(
                write_message("none", "a"), metadata=(("x-request-id", "grpc-6"),), timeout=60
            )
        error: Any = raised.value
        assert dict(error.trailing_metadata())["x-request-id"] == "grpc-6"
        line = server.line(event="request", request_id="grpc-6")
        assert (line["status"], line["grpc_code"]) == (404, "NOT_FOUND")
        messages = iter([write_message("says", "a"), write_message("says", "b")])
        responses = list(
            stub.ModelStreamInfer(messages, metadata=(("ce-id", "grpc-7"),), timeout=60)
        )
        line = server.line(event="request", request_id="grpc-7")
        assert line["bytes_out"] == sum(each.ByteSize() for each in responses)
        assert line["bytes_in"] == 2 * write_message("says", "a").ByteSize()
        assert len(server.lines(message="streams", request_id="grpc-7")) == 2


def test_a_grpc_request_without_an_id_has_none(server: LoggedServer) -> None:
    with open_stub(server) as stub:
        response, call = stub.ModelInfer.with_call(write_message("says", "a"), timeout=60)
    assert response.id == ""
    assert "x-request-id" not in dict(call.trailing_metadata())


def test_a_kafka_message(server: LoggedServer) -> None:
    cluster = server.cluster
    body = {"inputs": INPUTS}
    cluster.ask(body, model="says", x_request_id="kafka-8", traceparent=TRACE_PARENT)
    reply = cluster.answer()
    assert reply.key == reply.body["id"] == reply.headers["x-request-id"] == "kafka-8"
    line = server.line(event="request", request_id="kafka-8")
    assert set(line) == FIELDS
    assert (line["protocol"], line["method"], line["status"]) == ("kafka", "RECEIVE", 200)
    assert (line["path"], line["model"], line["version"]) == ("mlserver-input", "says", "v1")
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)
    assert min(line["bytes_in"], line["bytes_out"]) > 0
    assert server.line(message="predicts", request_id="kafka-8")["trace_id"] == TRACE
    cluster.ask({"inputs": INPUTS}, b"key-9", model="none", ce_id="kafka-9")
    reply = cluster.answer()
    assert (reply.key, reply.headers["ce-id"], reply.headers["mlserver-status"]) == (
        "key-9",
        "kafka-9",
        "404",
    )
    assert server.line(event="request", protocol="kafka", status=404)["bytes_out"] > 0
