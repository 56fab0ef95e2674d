"""Metadata, inputs and readiness are read from the model at every request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.repository import tensor, write_model
from support.server import Serve, Server

# Changes itself as its request says.
CHANGING = """
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse, MetadataTensor

HERE = Path(__file__).parent


class Changing(MLModel):
    fails = False

    async def predict(self, payload):
        (what,) = StringCodec.decode_input(payload.inputs[0])
        action, _, argument = what.partition(":")
        if action == "name":
            self.inputs = [MetadataTensor(name=argument, datatype="BYTES", shape=[-1])]
        elif action == "ready":
            self.ready = argument == "yes"
        elif action == "fail":
            self.fails = True
        elif action == "block":
            (HERE / "blocked").touch()
            while not (HERE / "go").exists():
                time.sleep(0.01)
        return InferenceResponse(model_name=self.name, outputs=[])

    async def metadata(self):
        if self.fails:
            raise ValueError("no idea")
        found = await super().metadata()
        found.platform = "fresh"
        return found
"""


@pytest.fixture(params=[0, 1], ids=["in-process", "one-worker"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    write_model(tmp_path / "changing", "Changing", source=CHANGING)
    with Server(tmp_path, workers=request.param, tracebacks=True) as server:
        yield server


def set_state(server: Server, what: str) -> None:
    assert server.infer("changing", [tensor("x", [what], "BYTES")]).status_code == 200


def input_names(server: Server) -> list[str]:
    return [
        tensor["name"] for tensor in server.get("/v2/models/changing").json().get("inputs") or []
    ]


def test_inputs_that_change(server: Server) -> None:
    assert input_names(server) == []
    for name in ("a", "b"):
        set_state(server, f"name:{name}")
        assert input_names(server) == [name]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            request = pb.ModelMetadataRequest(name="changing")
            metadata = GRPCInferenceServiceStub(channel).ModelMetadata(request, timeout=30)
        assert [tensor.name for tensor in metadata.inputs] == [name]


def test_metadata_that_fails(server: Server) -> None:
    set_state(server, "fail")
    answer = server.get("/v2/models/changing")
    assert answer.status_code == 500
    assert (
        answer.json()["error"] == "Model changing failed to give its metadata: ValueError: no idea"
    )


def test_a_busy_model_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    """Then the last known metadata are returned."""
    set_state(server, "name:a")
    assert input_names(server) == ["a"]
    with ThreadPoolExecutor(1) as caller:
        blocked = caller.submit(set_state, server, "block")
        try:
            server.wait((tmp_path / "changing" / "blocked").exists, "the model was busy")
            assert input_names(server) == ["a"]
        finally:
            (tmp_path / "changing" / "go").touch()
        blocked.result(timeout=30)


def test_a_model_that_is_not_ready_any_more(serve: Serve, tmp_path: Path) -> None:
    """In the server's process, where readiness can call the model."""
    write_model(tmp_path / "changing", "Changing", source=CHANGING)
    server = serve(tmp_path, workers=0)
    set_state(server, "ready:no")
    assert server.get("/v2/models/changing/ready").status_code != 200
    assert server.get("/v2/health/ready").status_code != 200
    (item,) = server.post("/v2/repository/index").json()
    assert (item["state"], item["reason"]) == ("UNAVAILABLE", "the model's own 'ready' is false")
    set_state(server, "ready:yes")
    assert server.get("/v2/health/ready").status_code == 200
