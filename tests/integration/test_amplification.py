"""Amplification.

No body of the corpus costs 100 times more CPU or memory than a normal one of its size.
Each body is sent many times to a server without workers. Its cost is compared with that of a
request of numbers with the same number of bytes, and at least with one small request: a client
with more amplification could stop a server. Bodies for MLflow's scoring protocol are compared
with such a body, because pandas takes ten times as long as this package's formats. They are sent
to a model that names its columns and to one that accepts any.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from fuzz.mutation import CORPUS
from mlserver.rest.negotiation import ARROW
from support.memory import cpu_seconds, peak_bytes, reset_peak
from support.model_cache import build_by_script
from support.raw_http import infer, request, wire
from support.repository import write_model, write_server_settings, write_settings
from support.server import Server

RUNTIME = "mlserver_mlflow.MLflowRuntime"
BOUND = 100
# Requests per measurement. The bound is at least 20 ms for each; the clock is exact to 1 us.
ROUNDS = 4
MEMORY = 64 * 1024  # bytes of a small request
# Path and content type for the bodies of each format.
SCORED = {
    "csv": "text/csv",
    "invocations": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
FORMATS = ("json", "binary", "arrow", "grpc", *SCORED)
# Models, by whether the body is for MLflow's protocol.
MODELS = {False: ("echo",), True: ("table", "any")}
SMALL = b'{"dataframe_records": [{"a": 1.5, "b": 2, "c": "x", "d": null}]}'
# Saved in a child process, so that this one does not import MLflow.
SAVE = """
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import pandas as pd
from mlflow.models import Model
from support.models import save_function

example = pd.DataFrame({"a": [1.5], "b": [2], "c": ["x"]})
body = '''
    def predict(self, context, model_input, params=None):
        return [len(model_input)]
'''
for name in ("table", "any"):
    folder = Path(sys.argv[1]) / name
    save_function(folder, body, example, [1])
    if name == "any":
        model = Model.load(folder)
        model.signature = None
        model.save(folder / "MLmodel")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("amplification")
    write_server_settings(folder, max_body_bytes=1024 * 1024)
    write_model(folder / "echo")
    saved = build_by_script("tables", SAVE)
    for name in MODELS[True]:
        where = {"implementation": RUNTIME, "parameters": {"uri": str(saved / name)}}
        write_settings(folder / name, name=name, **where)
    with Server(folder, workers=0) as running:
        with wire(running.http_port) as connection:  # warm
            for _ in range(200):
                connection.send(infer("echo", 1.0))
                connection.answer()
        yield running


@pytest.fixture(scope="module")
def ordinary(server: Server) -> dict[str, float]:
    """CPU seconds of one small request of each kind."""
    small = cost(server, "echo", "json", infer("echo", 1.0).partition(b"\r\n\r\n")[2], 200)
    for model in MODELS[True]:
        answer = server.post(f"/v2/models/{model}/invocations", SMALL)
        assert answer.status_code == 200, answer.text
    cost(server, "table", "invocations", SMALL, 10)  # warm
    scored = cost(server, "table", "invocations", SMALL, 40)
    return {name: max(scored if name in SCORED else small, 0.0002) for name in FORMATS}


def send(server: Server, model: str, target: str, body: bytes, times: int) -> None:
    if target == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(times):
                try:
                    call(body, timeout=20)
                except grpc.RpcError as error:
                    if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
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
    path = "invocations" if target in SCORED else "infer"
    whole = (
        request(
            "POST", f"/v2/models/{model}/{path}", None, *headers, f"content-length: {len(body)}"
        )
        + body
    )
    done = 0
    while done < times:
        with wire(server.http_port) as connection:
            while done < times:
                connection.send(whole)
                status, response_headers, _ = connection.answer()
                assert status < 500 or status == 504  # some request a timeout that is too short
                done += 1
                if response_headers.get("connection") == "close":
                    break


def cost(server: Server, model: str, target: str, body: bytes, times: int) -> float:
    before = cpu_seconds(server.process.pid)
    send(server, model, target, body, times)
    return (cpu_seconds(server.process.pid) - before) / times


CASES = [
    (model, target, path.name)
    for target in FORMATS
    for model in MODELS[target in SCORED]
    for path in sorted((CORPUS / target).iterdir())
]


@pytest.mark.parametrize("model, target, name", CASES)
def test_no_body_costs_a_hundred_times_more(
    server: Server, ordinary: dict[str, float], model: str, target: str, name: str
) -> None:
    body = (CORPUS / target / name).read_bytes()
    seconds = cost(server, model, target, body, ROUNDS)
    usual = ordinary[target]
    assert seconds <= BOUND * usual * max(1, len(body) / 1024), f"{seconds} s, ordinary: {usual} s"
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    send(server, model, target, body, 3)
    assert peak_bytes(pid) - before <= BOUND * max(len(body), MEMORY)
