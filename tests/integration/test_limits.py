"""Limits.

Body size before and after decompression, memory, rows, nesting, rank, time, names, series.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.memory import held_bytes, peak_bytes, reset_peak
from support.raw_http import infer, request, wire
from support.repository import tensor, write_model, write_server_settings
from support.server import Server
from support.slow import slow

MiB = 1024 * 1024
INFER = "/v2/models/echo/infer"
# Numbers of unknown names: each is in three names and a version.
UNKNOWN = [3000, slow(25_500)]
SLOW = """
import asyncio
import time

from mlserver import MLModel
from mlserver.custom_routes import custom_handler


class Slow(MLModel):
    async def predict(self, payload):
        await asyncio.Event().wait()

    async def predict_stream(self, payloads):
        async for payload in payloads:
            await asyncio.Event().wait()
            yield

    @custom_handler(rest_path="/wait")
    async def wait(self) -> str:
        await asyncio.Event().wait()
        return ""
"""
HANGS = """
import asyncio

from mlserver import MLModel


class Hangs(MLModel):
    async def load(self):
        await asyncio.Event().wait()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    write_server_settings(
        folder,
        max_body_bytes=16 * MiB,
        request_timeout=1.0,
        load_timeout=3.0,
        strict_readiness=False,
    )
    write_model(folder / "echo")
    write_model(folder / "slow", "Slow", source=SLOW)
    write_model(folder / "hangs", "Hangs", source=HANGS)
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose time limit no request of a busy machine exceeds."""
    folder = tmp_path_factory.mktemp("patient")
    write_server_settings(folder, max_body_bytes=16 * MiB)
    write_model(folder / "echo")
    with Server(folder, workers=0) as running:
        yield running


# -- bodies --

# Four times the memory that `test_bombs` allows. Compressed in the test, not at import: all
# processes of pytest-xdist import this file.
BOMB = 256 * MiB
LEVEL = 1  # half the time of the default; a body of 1 MiB
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(bytes(BOMB), LEVEL)),
    "deflate": ("deflate", lambda: zlib.compress(bytes(BOMB), LEVEL)),
    "gzip in gzip": ("gzip, gzip", lambda: gzip.compress(gzip.compress(bytes(BOMB), LEVEL))),
    "many gzip members": ("gzip", lambda: gzip.compress(bytes(MiB)) * 200),
    "many empty members": ("gzip", lambda: gzip.compress(b"") * 200_000),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs(server: Server, case: str) -> None:
    """Rejected with far less memory than the decompressed body: the limit and its overhead."""
    encoding, compress = BOMBS[case]
    body = compress()
    server.infer("echo", [tensor("x", [1.0])])
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    response = server.post(INFER, body, headers={"content-encoding": encoding})
    assert response.status_code in (413, 400), response.text
    assert peak_bytes(pid) - before < 64 * MiB


def test_a_declared_body_of_100_gb(server: Server) -> None:
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    with wire(server.http_port) as connection:
        connection.send(
            f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 107374182400\r\n\r\n".encode()
        )
        connection.send(bytes(65536))
        assert connection.answer()[0] == 413
    assert peak_bytes(pid) - before < 8 * MiB


def test_a_grpc_message_over_the_limit(server: Server) -> None:
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    message = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(17 * MiB)])
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(message)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_grpc_bomb(server: Server, name: str) -> None:
    """A compressed megabyte that decompresses to more than the limit."""
    compression = grpc.Compression.Gzip if name == "gzip" else grpc.Compression.Deflate
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    message = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(BOMB)])
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(message, compression=compression)
    assert error.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
    assert peak_bytes(pid) - before < 64 * MiB


# -- shapes and texts --


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "1" + "]" * depth)


# Built by the test that sends it: every test process collects this module.
HEAVY: dict[str, Callable[[], bytes]] = {
    "deep data": lambda: json.dumps({"inputs": [tensor("x", nested(40), shape=[1] * 40)]}).encode(),
    "deep parameters": lambda: b'{"inputs":[],"parameters":{"a":' + b"[" * 900 + b"]" * 900 + b"}}",
    "very deep JSON": lambda: b'{"inputs":' + b"[" * 500_000,
    "a number of a million digits": lambda: (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[' + b"9" * MiB + b"]}]}"
    ),
    "20,000 inputs": lambda: json.dumps(
        {"inputs": [tensor(str(number), [1]) for number in range(20_000)]}
    ).encode(),
    "an id of a megabyte": lambda: json.dumps(
        {"id": "x" * MiB, "inputs": [tensor("x", [1])]}
    ).encode(),
    "an id with a line break": lambda: json.dumps(
        {"id": "a\nb", "inputs": [tensor("x", [1])]}
    ).encode(),
    "an enormous product": lambda: json.dumps(
        {"inputs": [tensor("x", [], shape=[2**62, 4])]}
    ).encode(),
}


@pytest.mark.parametrize("case", HEAVY)
def test_expensive_requests_are_rejected(patient: Server, case: str) -> None:
    response = patient.post(INFER, HEAVY[case]())
    assert 400 <= response.status_code < 500, response.text
    assert len(response.content) < 4096


HARMLESS: dict[str, Callable[[], bytes]] = {
    "200,000 keys": lambda: json.dumps(
        {"inputs": [], "parameters": {str(key): 0 for key in range(200_000)}}
    ).encode(),
    "one key again and again": lambda: b'{"inputs":[]' + b',"id":"a"' * 200_000 + b"}",
    "an enormous empty shape": lambda: json.dumps(
        {"inputs": [tensor("x", [], shape=[2**40, 0])]}
    ).encode(),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_expensive_valid_requests_are_answered(patient: Server, case: str) -> None:
    response = patient.post(INFER, HARMLESS[case]())
    assert response.status_code == 200, response.text
    assert len(response.content) < 4096


# -- time --


def test_requests_time_out(server: Server) -> None:
    inputs = [tensor("x", [1.0])]
    assert server.infer("slow", inputs).status_code == 504
    assert server.post("/v2/models/slow/infer_stream", {"inputs": inputs}).status_code == 504
    assert server.post("/wait").status_code == 504


def test_a_stream_times_out(server: Server) -> None:
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    with pytest.raises(grpc.RpcError) as error:
        list(stub.ModelStreamInfer(iter([pb.ModelInferRequest(model_name="slow")])))
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_load_times_out(server: Server) -> None:
    states = {item["name"]: item for item in server.post("/v2/repository/index").json()}
    assert states["hangs"]["state"] == "UNAVAILABLE"
    assert "load_timeout" in states["hangs"]["reason"]


# -- names --


@pytest.mark.parametrize("count", UNKNOWN)
def test_unknown_names_leave_nothing_behind(server: Server, count: int) -> None:
    """Unknown names create no series, no memory and no flood in the log."""

    def page() -> str:
        return server.client.get(f"{server.metrics_url}/metrics").text

    def ask(number: int) -> bytes:
        paths = (
            f"unknown-{number}/ready",
            f"unknown-to-all-{number}",
            f"echo/versions/{number}/ready",
        )
        return infer(f"unknown-{number}", 1.0) + b"".join(
            request("GET", f"/v2/models/{path}") for path in paths
        )

    with wire(server.http_port) as connection:

        def answers(numbers: range) -> None:
            """Send pipelined requests, as many as a connection may have."""
            connection.send(b"".join(map(ask, numbers)))
            assert {connection.answer()[0] for _ in range(4 * len(numbers))} == {404}

        answers(range(2000, 2010))
        pid = server.process.pid
        before, held, logged = page(), held_bytes(pid), len(str(server.log))
        for first in range(0, count, 15):
            answers(range(first, first + 15))
    after = page()
    assert "unknown-" not in after
    assert len(after.splitlines()) == len(before.splitlines())
    assert len(str(server.log)) - logged < 10_000
    assert held_bytes(pid) - held < 8 * MiB


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc", "/etc/passwd", "a\\b", "C:\\x", "e\u0301", "\u200b", ".", "~", "-rf"],
)
def test_names_are_never_paths(server: Server, name: str) -> None:
    stub = GRPCInferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
    for call, message in (
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=name)),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=name)),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="echo", version=name)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(message)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_log_injection_is_escaped(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(request("GET", "/v2/models/%0Amlserver%20-%20INFO%20%1b[31mforged"))
        assert connection.answer()[0] == 404
    assert "\x1b" not in str(server.log)
