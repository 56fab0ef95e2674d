"""No body of the corpus costs a hundred times more than an ordinary one of its size, in processor time or in memory.

Each body is sent many times over to a real server without workers, so that its process is all that works. What a body costs
is compared with what the same number of bytes costs in a request of numbers, but at least with one small request: a server
that spends a hundred times that on somebody's bytes could be stopped by one caller. Bodies for MLflow's scoring protocol are compared
with such a body: pandas alone takes ten times as long as our own formats do. Parquet's bounds
are tested beside those of other tables.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from fuzz.mutation import CORPUS
from mlserver.rest.formats import ARROW
from support.memory import cpu_seconds, peak_bytes, reset_peak
from support.raw_http import infer, request, wire
from support.repository import write_model, write_server_settings, write_settings
from support.server import Server

BOUND = 100
# Seconds of processor time that the comparison allows per request whatever its size: the clock of /proc ticks 100 times a second.
ROUNDS = 100
MEMORY = 64 * 1024  # bytes: what one small request may hold
# Where a body of each format is sent, with which content type.
SCORED = {"csv": "text/csv", "invocations": "application/json"}
FORMATS = ("json", "binary", "arrow", "grpc", *SCORED)
SMALL = b'{"dataframe_records": [{"a": 1.5, "b": 2, "c": "x", "d": null}]}'
# Saved by a process of its own, so that this one needs no MLflow.
SAVE = """
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import pandas as pd
from support.models import save_function

example = pd.DataFrame({"a": [1.5], "b": [2], "c": ["x"]})
body = "\\n    def predict(self, context, model_input, params=None):\\n        return [len(model_input)]\\n"
save_function(Path(sys.argv[1]), body, example, [1])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("amplification")
    write_server_settings(folder, max_body_bytes=1024 * 1024)
    write_model(folder / "echo")
    where = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": "./model"}}
    write_settings(folder / "table", name="table", **where)
    command = [sys.executable, "-c", SAVE, str(folder / "table" / "model")]
    subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=True)
    with Server(folder, workers=0) as running:
        with wire(running.http_port) as connection:  # warm
            for _ in range(200):
                connection.send(infer("echo", 1.0))
                connection.answer()
        yield running


@pytest.fixture(scope="module")
def ordinary(server: Server) -> dict[str, float]:
    """Seconds of processor time for one small request of each kind."""
    small = cost(server, "json", infer("echo", 1.0).partition(b"\r\n\r\n")[2], 10 * ROUNDS)
    answer = server.post("/invocations", SMALL)
    assert answer.status_code == 200, answer.text
    cost(server, "invocations", SMALL, 10)  # warm
    scored = cost(server, "invocations", SMALL, ROUNDS)
    return {name: max(scored if name in SCORED else small, 0.0002) for name in FORMATS}


def send(server: Server, target: str, body: bytes, times: int) -> None:
    if target == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(times):
                try:
                    call(body, timeout=20)
                except grpc.RpcError as problem:
                    if problem.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                        raise
        return
    headers: list[str] = []
    if target == "arrow":
        headers = [f"content-type: {ARROW}"]
    elif target == "binary":
        head, _, body = body.partition(b"\n")
        headers = [f"inference-header-content-length: {head.decode()}"]
    elif target in SCORED:
        headers = [f"content-type: {SCORED[target]}"]
    path = "/invocations" if target in SCORED else "/v2/models/echo/infer"
    whole = request("POST", path, None, *headers, f"content-length: {len(body)}") + body
    done = 0
    while done < times:
        with wire(server.http_port) as connection:
            while done < times:
                connection.send(whole)
                status, answered, _ = connection.answer()
                assert status < 500 or status == 504  # some ask for a time that is too short
                done += 1
                if answered.get("connection") == "close":
                    break


def cost(server: Server, target: str, body: bytes, times: int) -> float:
    before = cpu_seconds([server.process.pid])
    send(server, target, body, times)
    return (cpu_seconds([server.process.pid]) - before) / times


CASES = [(target, path.name) for target in FORMATS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target, name", CASES)
def test_amplification(server: Server, ordinary: dict[str, float], target: str, name: str) -> None:
    body = (CORPUS / target / name).read_bytes()
    seconds = cost(server, target, body, ROUNDS if len(body) < 10_000 else 10)
    usual = ordinary[target]
    assert seconds <= BOUND * usual * max(1, len(body) / 1024), f"{seconds} s, ordinary: {usual} s"
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    send(server, target, body, 3)
    assert peak_bytes(pid) - before <= BOUND * max(len(body), MEMORY)
