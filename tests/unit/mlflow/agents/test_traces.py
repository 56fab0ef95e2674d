"""Trace ids in responses of agents, as from MLflow's agent server."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.genai import agent_server

from mlserver.types import InferenceRequest, Parameters
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.agents import openai_format
from support.python_models import Repeats
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")

REQUEST = {"input": [{"role": "user", "content": "one two"}]}
HEADER = "x-mlflow-return-trace-id"
TRACE = re.compile(r'"tr-[0-9a-f]{32}"')


@pytest.fixture(scope="session")
def oracle() -> httpx.AsyncClient:
    """MLflow's agent server; it knows one agent per process.

    A process may run the tests of this module in two parts, with others between them.
    """
    agent = Repeats()
    agent_server.invoke()(lambda request: agent.predict(request))  # type: ignore[no-untyped-call]
    agent_server.stream()(lambda request: agent.predict_stream(request))  # type: ignore[no-untyped-call]
    transport = httpx.ASGITransport(app=agent_server.AgentServer("ResponsesAgent").app)
    return httpx.AsyncClient(transport=transport, base_url="http://mlflow")


@pytest.fixture
async def runtime(mlflow_models: MLflowModels) -> MLflowRuntime:
    return (await mlflow_models("repeats")).runtime


def comparable(text: str) -> Any:
    """Events or a document, with the same id for every trace."""
    text = TRACE.sub('"tr-"', text)
    if text.startswith("data: "):
        return [line.removeprefix("data: ") for line in text.strip().split("\n\n")]
    return json.loads(text)


async def answer_of(runtime: MLflowRuntime, path: str, body: Any, headers: dict[str, str]) -> Any:
    (route,) = (route for route in runtime.routes() if route.path == path)
    text = json.dumps(body).encode()
    request = openai_format.read_request(text, "application/json", route.config)
    known = request.parameters.to_dict() if request.parameters is not None else {}
    request.put(parameters=Parameters.from_values({**known, "headers": headers}))
    writer = openai_format.open_stream(text, route.config)
    if writer is None:
        return comparable(
            openai_format.write_response(await runtime.predict(request), route.config)[1].decode()
        )
    parts = [writer.event(response) async for response in runtime.predict_stream(_one(request))]
    return comparable(b"".join([*parts, writer.end(None)]).decode())


async def _one(request: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield request


@pytest.mark.parametrize("path", ["/responses", "/invocations"])
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": False}], ids=str)
@pytest.mark.parametrize(
    "headers", [{}, {HEADER: "true"}, {HEADER: "TRUE"}, {HEADER: "false"}, {HEADER: "1"}], ids=str
)
async def test_as_the_agent_server_answers(
    oracle: httpx.AsyncClient,
    runtime: MLflowRuntime,
    path: str,
    more: dict[str, Any],
    headers: dict[str, str],
) -> None:
    expected = await oracle.post(path, json={**REQUEST, **more}, headers=headers)
    assert expected.status_code == 200
    assert await answer_of(runtime, path, {**REQUEST, **more}, headers) == comparable(expected.text)


@pytest.fixture
def _off() -> Iterator[None]:
    mlflow.tracing.disable()
    yield
    mlflow.tracing.enable()


@pytest.mark.usefixtures("_off")
@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=str)
async def test_where_no_trace_can_be(
    oracle: httpx.AsyncClient, runtime: MLflowRuntime, more: dict[str, Any]
) -> None:
    headers = {HEADER: "true"}
    expected = await oracle.post("/responses", json={**REQUEST, **more}, headers=headers)
    assert "MLFLOW_NO_OP_SPAN_TRACE_ID" in expected.text
    assert await answer_of(runtime, "/responses", {**REQUEST, **more}, headers) == comparable(
        expected.text
    )


async def test_the_trace_is_in_the_store(runtime: MLflowRuntime) -> None:
    (route,) = (route for route in runtime.routes() if route.path == "/responses")
    request = openai_format.read_request(
        json.dumps(REQUEST).encode(), "application/json", route.config
    )
    known = request.parameters.to_dict() if request.parameters is not None else {}
    request.put(parameters=Parameters.from_values({**known, "headers": {HEADER: "true"}}))
    document = json.loads(
        openai_format.write_response(await runtime.predict(request), route.config)[1]
    )
    flush: Callable[..., None] = mlflow.flush_trace_async_logging
    flush()
    trace = mlflow.get_trace(document["metadata"]["trace_id"])
    assert trace.data.spans[0].name == "predict"


async def test_answers_in_an_envelope_have_no_place_for_it(runtime: MLflowRuntime) -> None:
    answer = await answer_of(runtime, "/invocations", {"inputs": REQUEST}, {HEADER: "true"})
    assert list(answer) == ["predictions"]


async def test_traces_are_disabled_without_a_destination(
    mlflow_models: MLflowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {HEADER: "true"}
    before = mlflow.get_tracking_uri()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(None)
    try:
        nowhere = await answer_of(
            await mlflow_models.runtime("repeats"), "/responses", REQUEST, headers
        )
        assert nowhere["metadata"]["trace_id"] == "MLFLOW_NO_OP_SPAN_TRACE_ID"
        mlflow.set_tracking_uri(before)
        somewhere = await answer_of(
            await mlflow_models.runtime("repeats"), "/responses", REQUEST, headers
        )
        assert somewhere["metadata"]["trace_id"] == "tr-"
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.tracing.enable()
