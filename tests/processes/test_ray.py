"""The life of a server with the engine `ray`: adoption, reloads, several servers, lost clusters."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import server as server_module
from support.models import WINE, Models
from support.ray_cluster import RayCluster
from support.repository import tensor, write_model, write_settings
from support.server import RAY, Serve, Server, run_mlserver

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]

# Answers with the process that runs it and the factor in its settings; sleeps for `seconds`.
SOURCE = """
import os
import time

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Tells(MLModel):
    def predict(self, payload):
        seconds = payload.inputs[0].data.root[0]
        time.sleep(seconds)
        factor = self.settings.parameters.extra.get("factor", 1)
        values = [float(os.getpid()), float(factor)]
        output = ResponseOutput(name="y", shape=[2], datatype="FP64", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def write_tells(folder: Path, factor: float = 1, **ray: Any) -> Path:
    """Write the model `tells` into a repository; return the repository."""
    write_model(
        folder / "tells",
        "Tells",
        source=SOURCE,
        parameters={"extra": {"factor": factor}},
        ray={"num_cpus": 0.1, **ray},
    )
    return folder


def ask(server: Server, seconds: float = 0.0) -> tuple[int, float]:
    """The process of the replica that answered, and the factor."""
    response = server.infer("tells", [tensor("seconds", [seconds])])
    assert response.status_code == 200, response.text
    pid, factor = response.json()["outputs"][0]["data"]
    return int(pid), factor


@contextmanager
def load(server: Server, callers: int = 4) -> Iterator[list[tuple[int, str]]]:
    """Send requests from several callers until the end of the block; yields status and body."""
    answers: list[tuple[int, str]] = []
    stopped = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            body = json.dumps({"inputs": [tensor("seconds", [0.01])]})
            while not stopped.is_set():
                response = client.post("/v2/models/tells/infer", content=body)
                answers.append((response.status_code, response.text))

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(send) for _ in range(callers)]
        try:
            yield answers
        finally:
            stopped.set()
        for future in running:
            future.result()


def test_the_same_bits_over_every_protocol(serve: Serve, models: Models, tmp_path: Path) -> None:
    """The row-wise fast path runs in replicas."""
    parameters = {"uri": str(models["wine"])}
    implementation = "mlserver_mlflow.MLflowRuntime"
    ray = {"num_replicas": 2, "num_cpus": 0.1}
    write_settings(
        tmp_path / "wine",
        name="wine",
        implementation=implementation,
        parameters=parameters,
        ray=ray,
    )
    server = serve(tmp_path, workers=RAY)
    body = {"dataframe_records": [WINE]}
    for _ in range(20):
        answer = server.post("/invocations", body).json()
        assert answer == {"predictions": [models.wine_answer]}


def test_a_killed_server_leaves_replicas_that_the_next_one_adopts(
    serve: Serve, tmp_path: Path
) -> None:
    write_tells(tmp_path)
    first = Server(tmp_path, workers=RAY)
    first.__enter__()
    pid, _ = ask(first)
    os.kill(first.process.pid, signal.SIGKILL)
    assert first.stop() == -signal.SIGKILL
    assert not first.surviving_processes  # its agent ends with it
    second = serve(tmp_path, workers=RAY)
    assert ask(second)[0] == pid
    assert "which runs already" in second.log


def test_on_exit_keep(ray_cluster: RayCluster, tmp_path: Path) -> None:
    write_tells(tmp_path)
    env = {"MLSERVER_RAY": json.dumps({"address": ray_cluster.address, "on_exit": "keep"})}
    with Server(tmp_path, workers=RAY, env=env | {"MLSERVER_SERVER_NAME": "keeps"}) as server:
        pid, _ = ask(server)
    os.kill(pid, 0)
    env |= {
        "MLSERVER_SERVER_NAME": "keeps",
        "MLSERVER_RAY": json.dumps({"address": ray_cluster.address}),
    }
    with Server(tmp_path, workers=RAY, env=env) as server:
        assert ask(server)[0] == pid


def test_a_reload_loses_no_request(serve: Serve, tmp_path: Path) -> None:
    server = serve(write_tells(tmp_path), workers=RAY)
    before, _ = ask(server)
    with load(server) as answers:
        write_tells(tmp_path, factor=2)
        assert server.post("/v2/repository/models/tells/load").status_code == 200
        after = ask(server)
    assert after[0] != before
    assert after[1] == 2
    assert {status for status, _ in answers} == {200}
    assert {json.loads(text)["outputs"][0]["data"][1] for _, text in answers} == {1, 2}
    server.wait(lambda: not is_alive(before), "the old replica had ended")


def test_load_and_unload(serve: Serve, tmp_path: Path) -> None:
    server = serve(write_tells(tmp_path), workers=RAY)
    pid, _ = ask(server)
    assert server.post("/v2/repository/models/tells/unload").status_code == 200
    assert server.infer("tells", [tensor("seconds", [0.0])]).status_code == 404
    server.wait(lambda: not is_alive(pid), "the replica had ended")
    assert server.post("/v2/repository/models/tells/load").status_code == 200
    assert ask(server)[0] != pid


def test_two_servers_share_replicas_and_follow_each_other(serve: Serve, tmp_path: Path) -> None:
    write_tells(tmp_path)
    first, second = serve(tmp_path, workers=RAY), serve(tmp_path, workers=RAY)
    pid, _ = ask(first)
    assert ask(second)[0] == pid
    write_tells(tmp_path, factor=3)
    with load(second) as answers:
        assert first.post("/v2/repository/models/tells/load").status_code == 200
        second.wait(lambda: ask(second)[1] == 3, "the second server had followed")
    assert {status for status, _ in answers} == {200}
    assert first.post("/v2/repository/models/tells/unload").status_code == 200
    path = "/v2/models/tells"
    second.wait(lambda: second.get(path).status_code == 404, "the second server had followed")
    assert second.post("/v2/repository/models/tells/load").status_code == 200
    first.wait(lambda: first.get(path).status_code == 200, "the first server had followed")
    pid, _ = ask(first)
    assert first.stop() == 0
    assert ask(second)[0] == pid  # the last server deletes, not the first


def test_a_killed_replica_is_replaced_and_its_callers_are_answered(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(write_tells(tmp_path, num_replicas=2), workers=RAY)
    both = find_replicas(server, 2)
    with load(server, callers=8) as answers:
        os.kill(both.pop(), signal.SIGKILL)
        server.wait(lambda: len(find_replicas(server, 1) - both) == 1, "another replica answered")
    assert {status for status, _ in answers} <= {200, 503}
    assert all(
        json.loads(text)["outputs"][0]["data"][1] == 1 for status, text in answers if status == 200
    )
    assert server.get("/v2/health/ready").status_code == 200


def test_a_deadline_and_a_disconnect(serve: Serve, tmp_path: Path) -> None:
    server = serve(write_tells(tmp_path), workers=RAY, env={"MLSERVER_REQUEST_TIMEOUT": "2"})
    started = time.monotonic()
    assert server.infer("tells", [tensor("seconds", [8.0])]).status_code == 504
    assert time.monotonic() - started < 8
    assert ask(server)[1] == 1


def test_a_cluster_that_is_not_there_yet(tmp_path: Path, ray_cluster: RayCluster) -> None:
    """The server starts without it, says so, and loads once it is there."""
    write_tells(tmp_path)
    ray = {"address": "127.0.0.1:1"}
    with Server(tmp_path, workers=RAY, env={"MLSERVER_RAY": json.dumps(ray)}, ready=None) as server:
        server.wait_for_line("no connection to the Ray cluster '127.0.0.1:1'")
        assert server.get("/v2/health/live").status_code == 200
        assert server.get("/v2/health/ready").status_code != 200
        assert server.infer("tells", [tensor("seconds", [0.0])]).status_code == 503


def test_http_workers_are_refused(tmp_path: Path, ray_cluster: RayCluster) -> None:
    write_tells(tmp_path)
    env = {**server_module.ray_variables, "MLSERVER_HTTP_WORKERS": "2"}
    code, text = run_mlserver("start", str(tmp_path), env=env)
    assert code != 0
    assert re.search(r"http_workers: expected 1 with the engine 'ray', received 2", text)


def find_replicas(server: Server, count: int) -> set[int]:
    """The processes that answer; at least `count`."""
    pids: set[int] = set()
    deadline = time.monotonic() + 60
    while len(pids) < count and time.monotonic() < deadline:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: try_ask(server, 0.05), range(8)))
        pids.update(pid for pid in answers if pid is not None)
    return pids


def try_ask(server: Server, seconds: float) -> int | None:
    response = server.infer("tells", [tensor("seconds", [seconds])])
    return int(response.json()["outputs"][0]["data"][0]) if response.status_code == 200 else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
