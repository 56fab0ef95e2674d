"""Every kind of exception at every method of a model.

The response has the reason, all processes survive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.ending_models import ASYNC_ENDS, ENDS, PLACES, write_agents, write_custom
from support.repository import tensor
from support.server import Server
from support.slow import slow


@pytest.fixture(scope="module", params=[slow(0), 2], ids=["in-process", "two-workers"])
def custom(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("custom")
    write_custom(folder)
    yield from serve_some(folder, request.param)


@pytest.fixture(scope="module", params=[slow(0), 2], ids=["in-process", "two-workers"])
def agents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("agents")
    write_agents(folder)
    yield from serve_some(folder, request.param)


def serve_some(folder: Path, workers: int) -> Iterator[Server]:
    """A server with many models that fail to load; it and its workers survive the tests."""
    env = {"MLSERVER_STRICT_READINESS": "false"}
    with Server(folder, workers=workers, env=env, tracebacks=True) as server:
        server.wait_for_line("Ready in ")
        before = server.workers
        assert len(before) == workers
        yield server
        assert server.workers == before


def texts(*values: str) -> list[dict[str, Any]]:
    return [tensor("how", list(values), "BYTES", [len(values), 1] if len(values) == 1 else None)]


def grpc_request(model: str, *values: str) -> Any:
    contents = pb.InferTensorContents(bytes_contents=[value.encode() for value in values])
    shape = [len(values), 1] if len(values) == 1 else [len(values)]
    input_tensor = pb.ModelInferRequest.InferInputTensor(
        name="how", datatype="BYTES", shape=shape, contents=contents
    )
    return pb.ModelInferRequest(model_name=model, inputs=[input_tensor])


def status_of(how: str) -> int:
    """An `MLServerError` keeps the status code that the model gave it."""
    return 400 if how == "unsendable-error" else 500


def code_of(how: str) -> grpc.StatusCode:
    return (
        grpc.StatusCode.INVALID_ARGUMENT if how == "unsendable-error" else grpc.StatusCode.INTERNAL
    )


def assert_reason(text: str, how: str) -> None:
    assert {**ENDS, **ASYNC_ENDS}[how] in text
    assert len(text) < 6000


all_ends = pytest.mark.parametrize("how", [*ENDS, *ASYNC_ENDS])
sync_ends = pytest.mark.parametrize("how", [*ENDS])


def index(server: Server) -> dict[str, Any]:
    return {item["name"]: item for item in server.post("/v2/repository/index").json()}


# -- load: import, constructor and load() --


def test_failed_loads_have_their_reason(custom: Server) -> None:
    items = index(custom)
    for place in PLACES:
        for how in {**ENDS, **(ASYNC_ENDS if place in ("load", "metadata") else {})}:
            item = items[f"{place}.{how}"]
            assert item["state"] == "UNAVAILABLE", item
            assert_reason(item["reason"], how)
    assert items["ending"]["state"] == "READY"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["panic", "exit", "unreadable-panic"])
def test_a_load_requested_over_the_api(custom: Server, place: str, how: str) -> None:
    answer = custom.post(f"/v2/repository/models/{place}.{how}/load")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)


def test_loads_of_mlflow_models(agents: Server) -> None:
    items = index(agents)
    for how in ENDS:
        assert items[f"load.{how}"]["state"] == "UNAVAILABLE"
        assert_reason(items[f"load.{how}"]["reason"], how)
    assert items["well"]["state"] == "READY"


# -- predict --


@all_ends
def test_predict_over_rest(custom: Server, how: str) -> None:
    answer = custom.infer("ending", texts(how))
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert custom.infer("ending", texts("well")).status_code == 200


@all_ends
def test_predict_over_grpc(custom: Server, how: str) -> None:
    with (
        grpc.insecure_channel(f"127.0.0.1:{custom.grpc_port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(grpc_request("ending", how), timeout=30)
    assert caught.value.code() is code_of(how)
    assert_reason(caught.value.details(), how)


@sync_ends
def test_predict_of_mlflow_models(agents: Server, how: str) -> None:
    answer = agents.infer("well", texts(how))
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert agents.post("/invocations", {"inputs": {"how": [how]}}).status_code in (400, 500)
    assert agents.infer("well", texts("well")).status_code == 200


# -- streams --


def stream_over_rest(server: Server, model: str, inputs: Any) -> list[dict[str, Any]]:
    """The events of a stream; an error before the first one is the whole response."""
    with server.client.stream(
        "POST", f"/v2/models/{model}/infer_stream", json={"inputs": inputs}
    ) as answer:
        if answer.status_code != 200:
            return [json.loads(answer.read())]
        return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]


@pytest.mark.parametrize("when", ["early", "late"])
@all_ends
def test_streams_over_rest(custom: Server, how: str, when: str) -> None:
    events = stream_over_rest(custom, "ending", texts(how, when))
    assert [bool(event.get("outputs")) for event in events] == (
        [True, False] if when == "late" else [False]
    )
    assert_reason(events[-1]["error"], how)


@pytest.mark.parametrize("when", ["early", "late"])
@all_ends
def test_streams_over_grpc(custom: Server, how: str, when: str) -> None:
    seen = []
    with grpc.insecure_channel(f"127.0.0.1:{custom.grpc_port}") as channel:
        requests = iter([grpc_request("ending", how, when)])
        answers = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests, timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            seen.extend(iter(answers))
    assert len(seen) == (when == "late")
    assert caught.value.code() is code_of(how)
    assert_reason(caught.value.details(), how)


@sync_ends
def test_streams_of_mlflow_models(agents: Server, how: str) -> None:
    events = stream_over_rest(agents, "well", texts(how))
    assert events[0]["outputs"][0]["data"] == ["first"]
    assert_reason(events[-1]["error"], how)


# -- routes and unload --


@pytest.mark.parametrize("path", ["ends", "ends-in-a-thread"])
@all_ends
def test_custom_routes(custom: Server, how: str, path: str) -> None:
    if path == "ends-in-a-thread" and how in ASYNC_ENDS:
        pytest.skip("a plain function has no task")
    answer = custom.get(f"/v2/models/ending/{path}/{how}")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)


@all_ends
def test_unload(custom: Server, how: str) -> None:
    name = f"unload.{how}"
    assert index(custom)[name]["state"] == "READY"
    answer = custom.post(f"/v2/repository/models/{name}/unload")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert custom.infer(name, texts("well")).status_code == 404
    assert index(custom)[name]["state"] != "READY"
    assert custom.post(f"/v2/repository/models/{name}/load").status_code == 200
