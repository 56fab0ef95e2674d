"""HTTP workers: several processes with HTTP and gRPC over one set of workers answer alike."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from mlserver.security.credentials import hash_key
from mlserver.wire.pb import dataplane_pb2 as pb
from support.chaos import Chaos, build_inputs, wait_until_gone, write_chaos
from support.connections import Connection, one_of_each, processes_of
from support.repository import tensor, write_model, write_server_settings
from support.server import STOP_LIMIT, Serve, Server, fetch, run_mlserver
from support.slow import slow

TRIES = 200  # channels that the kernel distributes at random: of two processes, each gets some
TWO = {"MLSERVER_HTTP_WORKERS": "2"}

# A custom path, and a stream of responses.
TALKER = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse


class Talker(MLModel):
    @custom_handler(rest_path="/reverse")
    async def reverse(self, text: str) -> str:
        return text[::-1]

    async def predict_stream(self, payloads):
        async for payload in payloads:
            for word in StringCodec.decode_input(payload.inputs[0])[0].split():
                output = StringCodec.encode_output("word", [word])
                yield InferenceResponse(model_name=self.name, outputs=[output])
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two HTTP workers and two workers, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("models")
    write_chaos(folder)
    write_model(folder / "echo")
    write_model(folder / "talker", "Talker", source=TALKER)
    with Server(folder, workers=2, env=TWO) as server:
        server.wait_for_line("Ready in")
        yield server


@pytest.fixture
def each(shared: Server) -> Iterator[list[Connection]]:
    """A connection to each process."""
    with one_of_each(shared) as connections:
        yield connections


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


def echo(connection: Connection, text: str) -> None:
    """Request an echo and check the response."""
    status, answer = connection.infer("chaos", build_inputs("echo", text))
    assert (status, answer["outputs"][0]["data"]) == (200, [text]), answer


def counter(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    page = fetch(f"{server.metrics_url}/metrics").text
    pairs = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in page.splitlines() if re.match(rf"{name}[ {{]", line)]
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in pairs)
    )


def further(server: Server) -> int:
    """Process id of the second HTTP worker."""
    with one_of_each(server) as (_, other):
        return other.process


# -- every process answers alike --


def test_all_answer_and_all_are_counted(shared: Server, each: list[Connection]) -> None:
    before = counter(shared, "model_infer_request_success_total", model="chaos")
    for number in range(10):
        for connection in each:
            echo(connection, f"{connection.process}-{number}")

    assert counter(shared, "model_infer_request_success_total", model="chaos") == before + 20
    assert (
        counter(shared, "model_infer_request_duration_seconds_count", model="chaos") == before + 20
    )
    assert counter(shared, "model_infer_requests_in_flight", model="chaos") == 0
    for connection in each:
        _, statistics = connection.ask("GET", "/v2/models/chaos/stats")
        assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] == before + 20


def test_all_describe_the_same_models(each: list[Connection]) -> None:
    for path in (
        "/v2",
        "/v2/health/ready",
        "/v2/models/chaos",
        "/v2/models/chaos/ready",
        "/v2/models/chaos/config",
    ):
        first, second = (connection.ask("GET", path) for connection in each)
        assert first == second
        assert first[0] == 200
    first, second = (connection.ask("POST", "/v2/repository/index") for connection in each)
    assert first == second
    assert {model["state"] for model in first[1]} == {"READY"}


def test_all_reject_the_same_requests(each: list[Connection]) -> None:
    for path in ("/v2/models/no/ready", "/v2/models/no/stats", "/v2/models/chaos/versions/7"):
        first, second = (connection.ask("GET", path) for connection in each)
        assert first == second
        assert first[0] == 404
    first, second = (connection.ask("POST", "/v2/repository/models/no/load") for connection in each)
    assert first == second
    assert first[0] == 404


@pytest.mark.parametrize("who", [0, 1])
def test_a_load_through_one_is_visible_in_all(each: list[Connection], who: int) -> None:
    assert each[who].ask("POST", "/v2/repository/models/echo/unload")[0] == 200
    assert [connection.ask("GET", "/v2/models/echo/ready")[0] for connection in each] == [404, 404]
    assert each[who].ask("POST", "/v2/repository/models/echo/load")[0] == 200
    assert [connection.ask("GET", "/v2/models/echo/ready")[0] for connection in each] == [200, 200]
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [who]}]
    assert [connection.infer("echo", inputs)[0] for connection in each] == [200, 200]


def test_all_serve_custom_paths(each: list[Connection]) -> None:
    assert [connection.ask("POST", "/reverse?text=abc") for connection in each] == [
        (200, "cba"),
        (200, "cba"),
    ]


def test_all_stream(shared: Server, each: list[Connection]) -> None:
    for connection in each:
        status, events = connection.stream("talker", [tensor("text", ["so it goes"], "BYTES")])
        assert status == 200
        assert [event["outputs"][0]["data"] for event in events] == [["so"], ["it"], ["goes"]]


def test_all_speak_grpc(shared: Server) -> None:
    """Open channels until each process has one."""
    before = counter(shared, "grpc_server_handled_total", grpc_method="ModelInfer", grpc_code="OK")
    count = 0
    with ExitStack() as stack:
        while len(processes_of(shared, shared.grpc_port)) < 2:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(
                grpc.insecure_channel(f"127.0.0.1:{shared.grpc_port}", options)
            )
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                pb.ModelInferRequest.SerializeToString,
                pb.ModelInferResponse.FromString,
            )
            message = pb.ModelInferRequest(model_name="chaos")
            tensor = message.inputs.add(name="x", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(b"echo:%d" % count)
            answer = infer(message, timeout=30)
            assert answer.outputs[0].contents.bytes_contents[0] == b"%d" % count
            count += 1
            assert count < TRIES
    assert (
        counter(shared, "grpc_server_handled_total", grpc_method="ModelInfer", grpc_code="OK")
        == before + count
    )


# -- processes that die --


def test_a_killed_http_worker_is_replaced(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1, env=TWO)
    server.wait_for_line("Ready in")
    before = server.workers
    killed = further(server)
    counted = counter(server, "model_infer_request_success_total", model="chaos")
    os.kill(killed, signal.SIGKILL)
    wait_until_gone([killed])
    with Connection(server) as own:
        echo(own, "a")
    server.wait(
        lambda: len(server.workers) == 2 and killed not in server.workers, "another one was started"
    )

    assert len(set(server.workers) - set(before)) == 1
    with one_of_each(server) as each:
        for connection in each:
            echo(connection, "b")
            assert connection.ask("GET", "/v2/health/ready")[0] == 200
    assert counter(server, "model_infer_request_success_total", model="chaos") == counted + 3
    server.wait_for_line(f"HTTP worker {killed} ended unexpectedly (signal SIGKILL)")


@pytest.mark.slow
def test_an_http_worker_that_hangs_is_replaced(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """Without a change of the server's state, too."""
    server = serve(tmp_path, workers=1, env=TWO)
    server.wait_for_line("Ready in")
    hung = further(server)
    os.kill(hung, signal.SIGSTOP)
    server.wait_for_line(f"HTTP worker {hung} did not acknowledge the ping within 10 s, killing it")
    server.wait(
        lambda: len(server.workers) == 2 and hung not in server.workers, "another one was started"
    )
    with one_of_each(server) as each:
        for connection in each:
            echo(connection, "b")


def wait_for_readiness(server: Server, connection: Connection, status: int) -> None:
    server.wait(
        lambda: connection.ask("GET", "/v2/health/ready")[0] == status, f"readiness was {status}"
    )


def test_workers_that_die(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """Every HTTP worker learns of replaced workers."""
    server = serve(tmp_path, workers=2, env=TWO)
    server.wait_for_line("Ready in")
    with one_of_each(server) as each:
        before = [pid for pid in server.workers if pid != each[1].process]
        chaos.add_marker("block-load")  # the replacements cannot get ready
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(before)
        for connection in each:
            wait_for_readiness(server, connection, 400)
            status, error = connection.infer("chaos", build_inputs("echo", "a"))
            assert status == 503
            assert error["error"].startswith("No worker process is alive to run the model")
        chaos.remove_marker("block-load")
        for connection in each:
            wait_for_readiness(server, connection, 200)
            echo(connection, "b")


def test_a_stuck_model_is_killed_for_requests_of_any_process(serve: Serve, tmp_path: Path) -> None:
    write_chaos(tmp_path, request_timeout=0.5)
    server = serve(tmp_path, workers=1, env=TWO)
    server.wait_for_line("Ready in")
    with one_of_each(server) as (_, other):
        assert other.infer("chaos", build_inputs("block", "a"))[0] == 504
        server.wait_for_line("is stuck in a request past its time limit")
        server.wait(
            lambda: other.infer("chaos", build_inputs("echo", "b"))[0] == 200,
            "the new worker answered",
        )


def test_all_processes_exit_when_the_server_is_killed(tmp_path: Path, chaos: Chaos) -> None:
    server = Server(tmp_path, workers=1, env=TWO)
    server.__enter__()
    server.wait_for_line("Ready in")
    others = server.workers
    server.process.kill()
    server.process.wait(STOP_LIMIT)
    wait_until_gone(others)
    assert len(others) == 2
    server.stop()


@pytest.mark.parametrize("who", [slow(0), 1])
def test_accepted_requests_are_answered_before_the_exit(
    serve: Serve, tmp_path: Path, chaos: Chaos, who: int
) -> None:
    server = serve(tmp_path, workers=1, env=TWO)
    server.wait_for_line("Ready in")
    with ThreadPoolExecutor(1) as callers, one_of_each(server) as each:
        call = callers.submit(each[who].infer, "chaos", build_inputs("wait", "a"))
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(
            lambda: each[1 - who].ask("GET", "/v2/health/ready")[0] == 400,
            "the other was not ready any more",
        )
        assert server.process.poll() is None
        chaos.add_marker("go-a")
        status, answer = call.result(timeout=20)
        assert (status, answer["outputs"][0]["data"]) == (200, ["a"])
    assert server.process.wait(STOP_LIMIT) == 0
    wait_until_gone(server.list_processes())


@pytest.mark.slow
def test_a_replaced_model_ends_what_it_began(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """A request through one process continues while the model is reloaded through the other."""
    server = serve(tmp_path, workers=1, env=TWO)
    server.wait_for_line("Ready in")
    with ThreadPoolExecutor(2) as callers, one_of_each(server) as (own, other):
        call = callers.submit(other.infer, "chaos", build_inputs("wait", "a"))
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        loading = callers.submit(own.ask, "POST", "/v2/repository/models/chaos/load")
        server.wait(
            lambda: str(server.log).count("Loaded model 'chaos'") == 2, "it was loaded again"
        )
        with Connection(server) as third:
            echo(third, "b")
        assert not loading.done()
        chaos.add_marker("go-a")
        assert call.result(timeout=20)[0] == 200
        assert loading.result(timeout=20)[0] == 200


def test_all_ask_for_credentials(tmp_path: Path) -> None:
    """Also if the path of the keys' file is relative to the settings file."""
    write_model(tmp_path / "echo")
    (tmp_path / "keys").write_text(f"caller infer {hash_key('secret')}\n")
    write_server_settings(tmp_path, auth={"keys": "keys"})
    with Server(tmp_path, workers=1, env=TWO) as server:
        server.wait_for_line("Ready in")
        with one_of_each(server) as each:
            assert [connection.ask("GET", "/v2")[0] for connection in each] == [401, 401]
            assert [
                connection.ask("GET", "/v2", headers={"x-api-key": "secret"})[0]
                for connection in each
            ] == [
                200,
                200,
            ]


# -- rejected settings --


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"parallel_workers": 0},
            "http_workers: expected 1 with parallel_workers of 0; "
            "set parallel_workers to 1 or more",
        ),
        slow({"http_port": "taken"}, "(setting 'http_port')"),
        ({"grpc_port": "taken"}, "(setting 'grpc_port')"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused(shared: Server, tmp_path: Path, settings: dict[str, object], text: str) -> None:
    """The ports of a server that shares them with its own processes included."""
    write_model(tmp_path / "echo")
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    taken = {name: getattr(shared, name) for name, value in settings.items() if value == "taken"}
    write_server_settings(
        tmp_path, host="127.0.0.1", http_workers=2, **{**ports, **settings, **taken}
    )
    code, output = run_mlserver("start", str(tmp_path))

    assert code != 0
    assert text in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_model_in_the_server_process_is_rejected(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "here", parallel_workers=0)
    server = serve(tmp_path, workers=1, env=TWO, ready="/v2/models/echo/ready")
    server.wait_for_line("Not ready")
    index = {model["name"]: model for model in server.post("/v2/repository/index").json()}

    assert "set 'http_workers' to 1" in index["here"]["reason"]
    assert index["echo"]["state"] == "READY"
