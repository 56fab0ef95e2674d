"""Workers that die or hang: every request is answered, the pool recovers, readiness is correct."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.chaos import Chaos, build_inputs, infer_chaos, wait_until_gone, write_chaos
from support.repository import write_model, write_server_settings
from support.server import Serve, Server, run_mlserver
from support.slow import slow

ANSWERED = (200, 503)


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_for_workers(server: Server, count: int, without: list[int]) -> None:
    """Return when `count` workers other than `without` live and the server is ready."""
    server.wait(
        lambda: len(server.workers) == count and not set(server.workers) & set(without),
        f"{count} new workers were there",
    )
    server.wait_until("/v2/health/ready")


def begin(
    callers: ThreadPoolExecutor, server: Server, action: str, names: list[str]
) -> list[Future[tuple[int, Any]]]:
    return [callers.submit(infer_chaos, server, action, name) for name in names]


# -- killed --


def test_one_of_two_killed_while_idle(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2)
    before = server.workers
    kill(before[:1])
    assert [infer_chaos(server, "echo", str(number)) for number in range(5)] == [
        (200, str(number)) for number in range(5)
    ]
    wait_for_workers(server, 2, before[:1])


@pytest.mark.parametrize("workers", [slow(1), 2])
def test_all_killed_while_idle(serve: Serve, tmp_path: Path, chaos: Chaos, workers: int) -> None:
    server = serve(tmp_path, workers=workers)
    before = server.workers
    chaos.add_marker("block-load")  # the replacements cannot get ready
    kill(before)
    wait_until_gone(before)
    server.wait_until("/v2/health/ready", 400)
    server.wait_until("/v2/models/chaos/ready", 400)
    assert server.get("/v2/health/live").status_code == 200
    status, text = infer_chaos(server, "echo", "a")
    assert (status, text) == (
        503,
        "No worker process is alive to run the model; a new one is being started",
    )
    (model,) = server.post("/v2/repository/index", {}).json()
    assert (model["state"], model["reason"]) == (
        "UNAVAILABLE",
        "no worker process is alive to run the model",
    )

    chaos.remove_marker("block-load")
    wait_for_workers(server, workers, before)
    assert infer_chaos(server, "echo", "a") == (200, "a")


def test_all_killed_in_the_middle_of_requests(
    serve: Serve, tmp_path: Path, chaos: Chaos, callers: ThreadPoolExecutor
) -> None:
    server = serve(tmp_path, workers=2)
    before = server.workers
    names = ["a", "b", "c", "d"]
    calls = begin(callers, server, "wait", names)
    server.wait(
        lambda: all(chaos.has_marker(f"started-{name}") for name in names), "all requests ran"
    )
    kill(before)
    for name in names:
        chaos.add_marker(f"go-{name}")

    for name, caller in zip(names, calls, strict=True):
        status, text = caller.result(timeout=20)
        assert status in ANSWERED, text
        assert status == 503 or text == name
    wait_for_workers(server, 2, before)
    assert infer_chaos(server, "echo", "e") == (200, "e")


def test_a_request_is_retried_once(
    serve: Serve, tmp_path: Path, chaos: Chaos, callers: ThreadPoolExecutor
) -> None:
    """One worker of two dies: the other one runs the retry, so no client notices."""
    server = serve(tmp_path, workers=2)
    (call,) = begin(callers, server, "wait", ["a"])
    server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
    chaos.add_marker("go-a")
    served_by = int((tmp_path / "chaos" / "started-a").read_text() or "0")
    if served_by in server.workers:
        kill([served_by])

    assert call.result(timeout=20) == (200, "a")


@pytest.mark.slow
def test_workers_killed_repeatedly_under_load(
    serve: Serve, tmp_path: Path, chaos: Chaos, callers: ThreadPoolExecutor
) -> None:
    """Workers are killed under load: each client receives its own response or a 503."""
    server = serve(tmp_path, workers=2)

    def talk(caller: int) -> dict[int, int]:
        counts = dict.fromkeys(ANSWERED, 0)
        for number in range(40):
            status, text = infer_chaos(server, "echo", f"{caller}-{number}")
            assert status in ANSWERED, text
            assert status == 503 or text == f"{caller}-{number}"
            counts[status] += 1
        return counts

    talking = [callers.submit(talk, caller) for caller in range(4)]
    for _ in range(3):
        before = server.workers
        kill(before)
        wait_for_workers(server, 2, before)

    counts = [caller.result(timeout=60) for caller in talking]
    assert all(count[200] for count in counts), counts


# -- killed by the model --


def test_a_model_that_ends_its_process(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2)
    before = server.workers
    status, text = infer_chaos(server, "leave", "a")
    assert (status, text) == (503, "Two worker processes ended while they ran this request")
    wait_for_workers(server, 2, before)

    assert infer_chaos(server, "echo", "b") == (200, "b")


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_a_model_that_calls_exit(serve: Serve, tmp_path: Path, chaos: Chaos, workers: int) -> None:
    server = serve(tmp_path, workers=workers, tracebacks=True)
    status, text = infer_chaos(server, "exit", "a")
    assert (status, text) == (500, "Model chaos failed to predict: SystemExit: 0")

    assert len(server.workers) == workers
    assert infer_chaos(server, "echo", "b") == (200, "b")
    server.wait_until("/v2/health/ready")


# -- stuck --


@pytest.mark.parametrize("action", [slow("block"), "hold"])
def test_a_stuck_model_is_killed_at_its_timeout(serve: Serve, tmp_path: Path, action: str) -> None:
    chaos = write_chaos(tmp_path, request_timeout=0.5)
    server = serve(tmp_path, workers=1)
    before = server.workers
    status, text = infer_chaos(server, action, "a")
    assert (status, text) == (504, "Request for model chaos timed out")
    assert chaos.has_marker("started-a")
    wait_for_workers(server, 1, before)

    server.wait(lambda: infer_chaos(server, "echo", "b") == (200, "b"), "the new worker answered")
    server.wait_for_line("is stuck in a request past its time limit")


def test_a_model_that_can_be_cancelled_keeps_its_worker(serve: Serve, tmp_path: Path) -> None:
    chaos = write_chaos(tmp_path, request_timeout=0.3)
    server = serve(tmp_path, workers=1)
    before = server.workers
    assert infer_chaos(server, "wait", "a")[0] == 504
    server.wait(lambda: chaos.has_marker("cancelled-a"), "the request was stopped in the model")
    assert infer_chaos(server, "echo", "b") == (200, "b")
    assert server.workers == before


def test_health_answers_while_a_model_blocks(
    serve: Serve, tmp_path: Path, chaos: Chaos, callers: ThreadPoolExecutor
) -> None:
    for workers in (0, 1):
        server = serve(tmp_path, workers=workers)
        (call,) = begin(callers, server, "block", ["a"])
        server.wait(lambda: chaos.has_marker("started-a"), "the model blocked")
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/chaos/ready", "/v2"):
            assert server.get(path).status_code == 200
        chaos.add_marker("go-a")
        assert call.result(timeout=20) == (200, "a")
        chaos.remove_marker("go-a")
        chaos.remove_marker("started-a")


# -- disconnects --


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_a_disconnect_cancels_the_request(
    serve: Serve, tmp_path: Path, chaos: Chaos, workers: int
) -> None:
    import http.client
    import json

    server = serve(tmp_path, workers=workers)
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    body = json.dumps({"inputs": build_inputs("wait", "a")})
    connection.request("POST", "/v2/models/chaos/infer", body, {"content-type": "application/json"})
    server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
    connection.close()

    server.wait(lambda: chaos.has_marker("cancelled-a"), "the request was stopped in the model")
    assert infer_chaos(server, "echo", "b") == (200, "b")


# -- overload --


def test_overload_is_refused_with_a_time_to_come_back(
    serve: Serve, tmp_path: Path, callers: ThreadPoolExecutor
) -> None:
    """The first of three requests waits for a batch; the queue has no room for the others."""
    write_chaos(tmp_path, max_queue_size=1, max_batch_size=4, max_batch_time=3600)
    server = serve(tmp_path, workers=1)
    limit = {"timeout": 5_000_000}
    calls = [
        callers.submit(server.infer, "chaos", build_inputs("echo", name), parameters=limit)
        for name in "abc"
    ]
    responses = sorted(
        (call.result(timeout=30) for call in calls), key=lambda item: item.status_code
    )

    assert [response.status_code for response in responses] == [429, 429, 504]
    assert all(int(response.headers["retry-after"]) >= 1 for response in responses[:2])
    assert "(setting 'max_queue_size')" in responses[0].json()["error"]


# -- loading --


def test_a_model_that_ends_its_worker_while_loading(serve: Serve, tmp_path: Path) -> None:
    write_chaos(tmp_path).add_marker("exit-in-load")
    write_model(tmp_path / "good")
    server = serve(tmp_path, workers=2, ready="/v2/models/good/ready")
    server.wait_for_line("Not ready")
    # The model that loads ends both workers; the index is read once a replacement is there.
    server.wait_until("/v2/models/good/ready")
    index = {model["name"]: model for model in server.post("/v2/repository/index", {}).json()}

    assert server.get("/v2/health/ready").status_code == 400
    assert index["good"]["state"] == "READY"
    assert index["chaos"]["state"] == "UNAVAILABLE"
    assert "ended" in index["chaos"]["reason"]
    status, text = infer_chaos(server, "echo", "a")
    assert status == 503
    assert "not ready" in text
    before = server.workers
    server.wait(lambda: len(server.workers) == 2, "the pool was full again")
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]
    assert server.infer("good", inputs).status_code == 200, before


def test_nothing_can_be_loaded(tmp_path: Path) -> None:
    write_chaos(tmp_path).add_marker("exit-in-load")
    write_server_settings(tmp_path, http_port=0, grpc_port=0, metrics_port=0, host="127.0.0.1")
    code, text = run_mlserver("start", str(tmp_path), env={"MLSERVER_PARALLEL_WORKERS": "1"})

    assert code == 1, text
    assert "'chaos'" in text.splitlines()[-1]
    assert "Traceback" not in text


def test_a_model_that_cannot_be_loaded_again_leaves_the_others(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    """A replacement worker cannot load one of two models: the other is served, later both."""
    write_model(tmp_path / "good")
    server = serve(tmp_path, workers=1)
    chaos.add_marker("exit-in-load")
    before = server.workers
    kill(before)
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]
    server.wait(lambda: server.infer("good", inputs).status_code == 200, "the other model served")
    assert server.get("/v2/models/chaos/ready").status_code == 400
    assert server.get("/v2/health/ready").status_code == 400

    chaos.remove_marker("exit-in-load")
    server.wait_until("/v2/health/ready")
    assert infer_chaos(server, "echo", "a") == (200, "a")
    server.wait(lambda: len(server.workers) == 1, "the worker without the model was gone")
