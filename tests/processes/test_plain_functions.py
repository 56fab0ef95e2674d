"""Plain functions of custom runtimes run in threads: overlap, limits, contexts, stuck calls."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from support.plain_model import (
    PlainModel,
    call_handler,
    infer_grpc,
    infer_rest,
    infer_stream,
    open_stub,
    read_message,
    write_message,
)
from support.server import Serve, Server
from support.slow import slow

workers = pytest.mark.parametrize("workers", [slow(0), 2])
# More than the default executor of asyncio has on a machine with two processors.
OVERLAP = 16


def submit(callers: ThreadPoolExecutor, server: Server, action: str, count: int) -> dict[str, Any]:
    """Send requests over both protocols at the same time; return their futures by argument."""
    futures: dict[str, Future[Any]] = {}
    for number in range(count):
        infer = infer_rest if number % 2 else infer_grpc
        name = f"{action}{number}"
        futures[name] = callers.submit(infer, server, "m", f"{action}:{name}")
    return futures


@pytest.mark.parametrize("workers", [slow(0), 1])  # in one process
def test_calls_that_wait_overlap(serve: Serve, tmp_path: Path, workers: int) -> None:
    """All requests are inside `predict` before the first returns; each gets its own answer."""
    model = PlainModel(tmp_path / "m")
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(OVERLAP) as callers:
        futures = submit(callers, server, "wait", OVERLAP)
        server.wait(lambda: model.count_inside() == OVERLAP, "all requests were inside")
        assert server.get("/v2/health/ready").status_code == 200
        model.release()
        for name, future in futures.items():
            assert future.result(60)[0] == name


@workers
def test_max_concurrency_of_one_serialises(serve: Serve, tmp_path: Path, workers: int) -> None:
    """Requests, streams and custom handlers never run at the same time in one process."""
    PlainModel(tmp_path / "m", max_concurrency=1)
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(12) as callers:
        futures = submit(callers, server, "echo", 60)
        streams = [
            callers.submit(infer_stream, server, "m", f"echo:s{number}") for number in range(20)
        ]
        handlers = [
            callers.submit(call_handler, server, "m", f"echo:h{number}") for number in range(20)
        ]
        for name, future in futures.items():
            assert future.result(60) == [name, "1"]
        for number, stream in enumerate(streams):
            assert stream.result(60) == [[f"s{number}-{part}", "1"] for part in range(3)]
        for number, handler in enumerate(handlers):
            assert handler.result(60) == [f"h{number}", "1"]


@workers
def test_answers_logs_and_metrics_belong_to_their_request(
    serve: Serve, tmp_path: Path, workers: int
) -> None:
    """Two models answer many requests at the same time; errors reach the request that failed."""
    models = [PlainModel(tmp_path / name) for name in ("a", "b")]
    server = serve(tmp_path, workers=workers, tracebacks=True)
    with ThreadPoolExecutor(16) as callers:
        futures: dict[tuple[str, str, str], Future[Any]] = {}
        for number in range(120):
            model = models[number % 2].name
            action = "fail" if number % 5 == 0 else "echo"
            infer = infer_rest if action == "fail" or number % 3 else infer_grpc
            name = f"{model}-{number}"
            future = callers.submit(infer, server, model, f"{action}:{name}")
            futures[model, action, name] = future
        for (model, action, name), future in futures.items():
            first, second = future.result(60)
            if action == "echo":
                assert first == name
            else:
                assert first == "500"
                assert second.endswith(f"Model {model} failed to predict: ValueError: no {name}")
    # Workers send their metrics after the response, and the log is a pipe.
    counted = [f'answered_sum{{model_name="{model}",model_version=""}} 48.0' for model in "ab"]

    def are_counted() -> bool:
        page = server.client.get(f"{server.metrics_url}/metrics").text
        return all(line in page for line in counted)

    server.wait(are_counted, "the metrics had their sums")
    server.wait(lambda: str(server.log).count(" answers ") >= 96, "each answer was logged")
    answers = [line for line in str(server.log).splitlines() if " answers " in line]
    assert len(answers) == 96
    for line in answers:
        model = line.partition(" answers ")[2].partition("-")[0]
        assert f"[{model}] INFO - answers" in line


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_a_place_is_taken_until_the_function_returns(
    serve: Serve, tmp_path: Path, workers: int
) -> None:
    """A client that disconnects, or whose timeout passes, does not let a second call in."""
    model = PlainModel(tmp_path / "m", max_concurrency=1)
    server = serve(tmp_path, workers=workers)
    assert infer_rest(server, "m", "wait:late", timeout=200_000)[0] == "504"
    with ThreadPoolExecutor(1) as callers:
        with pytest.raises(httpx.ReadTimeout):
            server.client.post(
                "/v2/models/m/plain", params={"text": "echo:gone"}, timeout=httpx.Timeout(0.2)
            )
        second = callers.submit(infer_rest, server, "m", "wait:second")
        assert infer_rest(server, "m", "echo:third", timeout=200_000)[0] == "504"
        assert not model.has_marker("in-second")
        assert not model.has_marker("out-late")
        model.release()
        assert second.result(60) == ["second", "1"]


def test_a_stream_that_waits_for_its_client_lets_others_in(serve: Serve, tmp_path: Path) -> None:
    PlainModel(tmp_path / "m", max_concurrency=1)
    server = serve(tmp_path, workers=1)
    messages: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()

    def read_messages() -> Iterator[pb.ModelInferRequest]:
        while (message := messages.get()) is not None:
            yield message

    with open_stub(server) as stub:
        responses = stub.ModelStreamInfer(read_messages(), timeout=60)
        for number in range(3):
            assert infer_rest(server, "m", "echo:between") == ["between", "1"]
            messages.put(write_message("m", f"echo:{number}"))
            for part in range(3):
                data = read_message(next(responses))
                assert data == [f"{number}-{part}", "1"]
        messages.put(None)
        assert list(responses) == []


def test_a_stream_whose_client_has_gone_frees_its_place(serve: Serve, tmp_path: Path) -> None:
    PlainModel(tmp_path / "m", max_concurrency=1)
    server = serve(tmp_path, workers=1)
    for _ in range(5):
        messages: queue.SimpleQueue[pb.ModelInferRequest] = queue.SimpleQueue()
        with open_stub(server) as stub:
            responses = stub.ModelStreamInfer(iter(messages.get, None), timeout=60)
            messages.put(write_message("m", "echo:x"))
            next(responses)
            responses.cancel()
            messages.put(write_message("m", "echo:y"))  # ends the reader's wait
    assert infer_rest(server, "m", "echo:after") == ["after", "1"]


def test_a_worker_whose_places_are_all_stuck_is_replaced(serve: Serve, tmp_path: Path) -> None:
    """The stuck calls get 504; once no call can run, the worker is killed, and others answer."""
    model = PlainModel(tmp_path / "m", max_concurrency=2, request_timeout=1)
    server = serve(tmp_path, workers=1)
    (first,) = server.workers
    with ThreadPoolExecutor(2) as callers:
        stuck = [callers.submit(infer_rest, server, "m", f"wait:{name}") for name in "ab"]
        assert {future.result(60)[0] for future in stuck} == {"504"}
    server.wait_for_line("no call of model 'm' can run: killed")
    server.wait(lambda: first not in server.workers, "the worker was killed")
    server.wait(lambda: infer_rest(server, "m", "echo:c") == ["c", "1"], "a replacement answered")
    model.release()


def test_one_stuck_call_does_not_stop_the_others(serve: Serve, tmp_path: Path) -> None:
    model = PlainModel(tmp_path / "m", max_concurrency=2, request_timeout=1)
    server = serve(tmp_path, workers=1)
    pids = server.workers
    assert infer_rest(server, "m", "wait:a")[0] == "504"
    for _ in range(20):
        assert infer_rest(server, "m", "echo:b") == ["b", "2"]
    assert server.workers == pids
    model.release()


def test_stuck_threads_in_the_server_s_process_are_not_ready(serve: Serve, tmp_path: Path) -> None:
    """Nothing can be killed here: readiness says so, and is true again when a call returns."""
    model = PlainModel(tmp_path / "m", max_concurrency=1, request_timeout=1)
    server = serve(tmp_path, workers=0)
    assert infer_rest(server, "m", "wait:a")[0] == "504"
    server.wait(lambda: server.get("/v2/models/m/ready").status_code != 200, "not ready")
    (entry,) = server.post("/v2/repository/index").json()
    assert "max_concurrency" in entry["reason"]
    model.release()
    server.wait_until("/v2/models/m/ready", 200)
    assert infer_rest(server, "m", "echo:c") == ["c", "1"]


@workers
def test_an_unload_waits_for_calls_that_run(serve: Serve, tmp_path: Path, workers: int) -> None:
    model = PlainModel(tmp_path / "m")
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(infer_rest, server, "m", "wait:a")
        server.wait(lambda: model.has_marker("in-a"), "the request was inside")
        unload = callers.submit(server.post, "/v2/repository/models/m/unload")
        server.wait(lambda: server.get("/v2/models/m/ready").status_code != 200, "unloading")
        assert not unload.done()
        model.release()
        assert running.result(60)[0] == "a"
        assert unload.result(60).status_code == 200
