"""REST, gRPC and the repository index say the same of a model in every state of its life."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.repository import tensor, write_model, write_server_settings
from support.server import Serve, Server, fetch
from support.slow import slow

# Waits for files in its folder (`loads`, `fails`, `predicts`), and writes `begun` and `called`.
SOURCE = """
import asyncio
import os
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceResponse

FOLDER = Path(__file__).parent


class Waits(MLModel):
    async def load(self):
        (FOLDER / "begun").write_text(str(os.getpid()))
        while not (FOLDER / "loads").exists():
            if (FOLDER / "fails").exists():
                raise ValueError("no weights")
            await asyncio.sleep(0.01)
        return True

    async def predict(self, payload):
        (FOLDER / "called").touch()
        while not (FOLDER / "predicts").exists():
            if payload.inputs[0].name == "blocks":
                time.sleep(0.01)
            else:
                await asyncio.sleep(0.01)
        return InferenceResponse(model_name=self.name, outputs=[])
"""


class Model:
    """A model of a server, and the files that it waits for."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.name = folder.name

    def allow(self, name: str) -> None:
        (self.folder / name).touch()

    def wait_for_file(self, name: str) -> None:
        self.server.wait((self.folder / name).exists, f"the file '{name}' was written")

    def forbid(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def change(self, action: str) -> int:
        path = f"/v2/repository/models/{self.name}/{action}"
        return int(self.server.post(path).status_code)

    def infer(self, tensor_name: str = "x") -> int:
        return self.server.infer(self.name, [tensor(tensor_name, [1.0])]).status_code

    def get_item(self) -> dict[str, Any]:
        items = self.server.post("/v2/repository/index").json()
        return next(item for item in items if item["name"] == self.name)

    def list_readiness(self) -> set[bool]:
        """What each protocol says, over connections of their own: to any HTTP worker."""
        is_ready = fetch(f"{self.server.url}/v2/models/{self.name}/ready").status_code == 200
        ready = self.server.post("/v2/repository/index", {"ready": True}).json()
        is_listed = self.name in [item["name"] for item in ready]
        is_in_state = self.get_item()["state"] == "READY"
        return {is_ready, is_listed, is_in_state, self._ask_over_grpc()}

    def _ask_over_grpc(self) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            try:
                return bool(stub.ModelReady(pb.ModelReadyRequest(name=self.name), timeout=30).ready)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                return False

    def check(self, state: str, is_ready: bool, reason: str = "") -> None:
        """Wait until the index has the state and the reason, and all protocols agree with it."""

        def is_so() -> bool:
            item = self.get_item()
            is_state = (item["state"], reason in item["reason"]) == (state, True)
            return is_state and self.list_readiness() == {is_ready}

        self.server.wait(is_so, f"all said {state}, {reason!r}")


@pytest.mark.parametrize("http_workers", [1, slow(2)])
def test_from_the_first_load_to_the_unload(serve: Serve, tmp_path: Path, http_workers: int) -> None:
    write_server_settings(tmp_path, http_workers=http_workers)
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nwhile ! [ -e {tmp_path}/end ]; do sleep 0.05; done\nexit 1\n")
    python.chmod(0o755)
    parameters = {"environment_path": str(python.parent.parent)}
    write_model(tmp_path / "prepares", "Waits", source=SOURCE, parameters=parameters)
    folder = write_model(tmp_path / "waits", "Waits", source=SOURCE)
    server = serve(tmp_path, workers=1, ready="/v2/health/live", tracebacks=True)
    model = Model(server, folder)
    prepares = Model(server, tmp_path / "prepares")
    with ThreadPoolExecutor(2) as callers:

        def begin(function: Callable[..., int], *arguments: str) -> Any:
            return callers.submit(function, *arguments)

        try:
            prepares.check("LOADING", False)
            model.wait_for_file("begun")
            model.check("LOADING", False)
            model.allow("loads")
            model.check("READY", True)

            model.forbid("loads", "begun")
            reloading = begin(model.change, "load")
            model.wait_for_file("begun")
            model.check("READY", True, "reload in progress")
            model.allow("fails")
            assert reloading.result() == 500
            model.check("READY", True, "no weights")

            worker = int((folder / "begun").read_text())
            model.forbid("fails", "begun")
            os.kill(worker, signal.SIGKILL)
            model.wait_for_file("begun")
            model.check("UNAVAILABLE", False)
            model.allow("loads")
            model.check("READY", True)

            calling = begin(model.infer)
            model.wait_for_file("called")
            unloading = begin(model.change, "unload")
            model.check("UNLOADING", False)
            model.allow("predicts")
            assert (calling.result(), unloading.result()) == (200, 200)
            model.check("UNAVAILABLE", False)
        finally:
            for name in ("loads", "predicts"):
                model.allow(name)
            (tmp_path / "end").touch()
    prepares.check("UNAVAILABLE", False, "environment")


def test_a_blocked_event_loop(serve: Serve, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "waits", "Waits", source=SOURCE, request_timeout=0.2)
    (folder / "loads").touch()
    server = serve(tmp_path, workers=0)
    model = Model(server, folder)
    with ThreadPoolExecutor(1) as caller:
        calling = caller.submit(model.infer, "blocks")
        try:
            model.check("UNAVAILABLE", False, "the event loop of the models has not reacted")
        finally:
            model.allow("predicts")
        assert calling.result() == 504
    model.check("READY", True)
