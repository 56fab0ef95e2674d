"""No body of the corpus costs a hundred times more than an ordinary one of its size, in processor time or in memory.

Each body is sent many times over to a real server without workers, so that its process is all that works. What a body costs
is compared with what the same number of bytes costs in a request of numbers, but at least with one small request: a server
that spends a hundred times that on somebody's bytes could be stopped by one caller.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from fuzz.mutation import CORPUS
from mlserver.rest.formats import ARROW
from support.memory import cpu_seconds, peak_bytes, reset_peak
from support.raw_http import infer, request, wire
from support.repository import write_model, write_server_settings
from support.server import Server

BOUND = 100
# Seconds of processor time that the comparison allows per request whatever its size: the clock of /proc ticks 100 times a second.
ROUNDS = 100
MEMORY = 64 * 1024  # bytes: what one small request may hold
FORMATS = ("json", "binary", "arrow", "grpc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("amplification")
    write_server_settings(folder, max_body_bytes=1024 * 1024)
    write_model(folder / "echo")
    with Server(folder, workers=0) as running:
        with wire(running.http_port) as connection:  # warm
            for _ in range(200):
                connection.send(infer("echo", 1.0))
                connection.answer()
        yield running


@pytest.fixture(scope="module")
def ordinary(server: Server) -> float:
    """Seconds of processor time for one small request."""
    return cost(server, "json", infer("echo", 1.0).partition(b"\r\n\r\n")[2], 10 * ROUNDS)


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
    whole = request("POST", "/v2/models/echo/infer", None, *headers, f"content-length: {len(body)}") + body
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
def test_amplification(server: Server, ordinary: float, target: str, name: str) -> None:
    body = (CORPUS / target / name).read_bytes()
    seconds = cost(server, target, body, ROUNDS if len(body) < 10_000 else 10)
    assert seconds <= BOUND * max(ordinary, 0.0002) * max(1, len(body) / 1024), f"{seconds} s, ordinary: {ordinary} s"
    pid = server.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    send(server, target, body, 3)
    assert peak_bytes(pid) - before <= BOUND * max(len(body), MEMORY)
