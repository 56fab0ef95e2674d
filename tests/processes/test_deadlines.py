"""Request timeouts: a request that times out in the queue never runs."""

from __future__ import annotations

import json
import selectors
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.chaos import Chaos, build_inputs, infer_chaos, write_chaos
from support.memory import peak_bytes, reset_peak
from support.raw_http import Wire, wire
from support.raw_http import request as raw_request
from support.repository import write_model
from support.server import Serve, Server
from support.slow import slow

SOON = 300_000  # microseconds
CALLERS, PLACES = 400, 10
Answer = tuple[int, dict[str, str], bytes]


@pytest.mark.parametrize(
    "workers, over", [(0, "grpc"), (1, "rest"), slow(0, "rest"), slow(1, "grpc")]
)
def test_a_timeout_in_the_queue(serve: Serve, tmp_path: Path, workers: int, over: str) -> None:
    """A request that times out in the queue is answered at once and never runs."""
    chaos = write_chaos(tmp_path)
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(1) as callers:
        first = callers.submit(infer_chaos, server, "block", "a")
        server.wait(lambda: chaos.has_marker("started-a"), "the first request ran")
        late_over_rest(server) if over == "rest" else late_over_grpc(server)
        assert not first.done()
        chaos.add_marker("go-a")
        assert first.result(timeout=20) == (200, "a")
    assert infer_chaos(server, "echo", "c") == (200, "c")
    assert not chaos.has_marker("started-b")


def late_over_rest(server: Server) -> None:
    answer = server.infer("chaos", build_inputs("echo", "b"), parameters={"timeout": SOON})
    assert (answer.status_code, answer.json()["error"]) == (
        504,
        "Request for model chaos timed out",
    )


def late_over_grpc(server: Server) -> None:
    message = pb.ModelInferRequest(model_name="chaos")
    message.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        b"echo:b"
    )
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=SOON / 1e6)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("workers", [slow(0), 1])
def test_a_timeout_in_the_model(serve: Serve, tmp_path: Path, workers: int) -> None:
    chaos = write_chaos(tmp_path)
    server = serve(tmp_path, workers=workers)
    answer = server.infer("chaos", build_inputs("wait", "a"), parameters={"timeout": SOON})
    assert answer.status_code == 504
    server.wait(
        lambda: chaos.has_marker("cancelled-a") or not chaos.has_marker("started-a"),
        "the model was cancelled",
    )
    assert infer_chaos(server, "echo", "b") == (200, "b")


# -- more requests than can be served --


def test_many_more_requests_than_the_queue_holds(serve: Serve, tmp_path: Path) -> None:
    """Each request is answered or rejected at once with `Retry-After`.

    Another model keeps responding.
    """
    chaos = write_chaos(tmp_path, max_queue_size=PLACES)
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=1)
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    with ExitStack() as stack:
        connections = {
            str(number): stack.enter_context(wire(server.http_port)) for number in range(CALLERS)
        }
        for name, connection in connections.items():
            body = json.dumps({"inputs": build_inputs("wait", name)}).encode()
            connection.send(raw_request("POST", "/v2/models/chaos/infer", body))
        rejections = dict(refusals(connections, CALLERS // 2))
        assert beside(server) == 200
        for name in connections:
            chaos.add_marker(f"go-{name}")
        rejections |= {
            name: connection.answer()
            for name, connection in connections.items()
            if name not in rejections
        }
    assert peak_bytes(pid) - before < 64 * 2**20
    for name, (status, headers, text) in rejections.items():
        if status == 429:
            assert int(headers["retry-after"]) >= 1
        else:
            assert (status, json.loads(text)["outputs"][0]["data"]) == (200, [name])
    assert sum(status == 200 for status, _, _ in rejections.values()) >= PLACES
    assert_empty(server, chaos)


def refusals(connections: dict[str, Wire], enough: int) -> Iterator[tuple[str, Answer]]:
    """Responses that arrive while the model runs none, up to `count`."""
    with selectors.DefaultSelector() as waiting:
        for name, connection in connections.items():
            waiting.register(connection.socket, selectors.EVENT_READ, name)
        count = 0
        while count < enough:
            ready = waiting.select(60)
            assert ready, "no request was rejected"
            for key, _ in ready:
                waiting.unregister(key.fileobj)
                count += 1
                yield key.data, connections[key.data].answer()


def beside(server: Server) -> int:
    return server.infer(
        "echo", [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]
    ).status_code


def assert_empty(server: Server, chaos: Chaos) -> None:
    assert infer_chaos(server, "echo", "afterwards") == (200, "afterwards")
    page = server.client.get(f"{server.metrics_url}/metrics").text
    assert 'model_infer_requests_in_flight{model="chaos",version=""} 0.0' in page
