"""Malicious HTTP/2 clients.

Floods of streams, resets, pings and settings, and silent connections. Every test ends with a valid
request over another connection to the same server.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.http2 import (
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RESET,
    SETTINGS,
    START,
    frame,
    literal,
)
from support.memory import descriptors, peak_bytes, reset_peak
from support.repository import write_model
from support.server import Server

COUNT = 20_000
ENOUGH = 3.0  # seconds without a byte read by the server
MiB = 2**20


def streams(count: int) -> range:
    return range(1, 2 * count, 2)


# Built by the test that sends it: every test process collects this module.
FLOODS: dict[str, Callable[[], list[bytes]]] = {
    "rapid reset": lambda: [
        frame(HEADERS, END_HEADERS, stream, CALL) + frame(RESET, 0, stream, bytes([0, 0, 0, 8]))
        for stream in streams(COUNT)
    ],
    "pings": lambda: [frame(PING, 0, 0, struct.pack(">Q", number)) for number in range(COUNT)],
    "settings": lambda: [frame(SETTINGS, 0, 0)] * COUNT,
    "streams without end": lambda: [
        frame(HEADERS, END_HEADERS, stream, CALL) for stream in streams(COUNT)
    ],
    "data of nothing": lambda: [
        frame(HEADERS, END_HEADERS, 1, CALL),
        *([frame(DATA, 0, 1)] * COUNT),
    ],
    "headers without end": lambda: [
        frame(HEADERS, 0, 1, CALL),
        *([frame(CONTINUATION, 0, 1, literal(b"x", bytes(100)))] * COUNT),
    ],
    "a message of four gigabytes": lambda: [
        frame(HEADERS, END_HEADERS, 1, CALL),
        frame(DATA, 0, 1, b"\x00\xff\xff\xff\xff" + bytes(1000)),
    ],
    "no HTTP/2": lambda: [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile-grpc")
    write_model(folder / "echo")
    with Server(folder) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    question(running)
    pid = running.process.pid
    reset_peak(pid)
    before = peak_bytes(pid)
    yield running
    question(running)
    assert peak_bytes(pid) - before < 64 * MiB


def question(server: Server) -> None:
    message = pb.ModelInferRequest(model_name="echo", raw_input_contents=[struct.pack("<q", 7)])
    message.inputs.add(name="x", datatype="INT64", shape=[1])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    assert list(answer.raw_output_contents) == list(message.raw_input_contents)


def send(connection: socket.socket, pieces: list[bytes]) -> None:
    """Send until all is sent or the server reads no more; its responses are discarded."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for at in range(0, len(pieces), 200):
            connection.settimeout(ENOUGH)
            connection.sendall(b"".join(pieces[at : at + 200]))
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while connection.recv(65536):
                    pass


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_leaves_the_server_responsive(server: Server, case: str) -> None:
    start = b"" if case == "no HTTP/2" else START
    with socket.create_connection(("127.0.0.1", server.grpc_port)) as connection:
        send(connection, [start, *FLOODS[case]()])
        question(server)


def test_many_connections_are_released(server: Server) -> None:
    """Half of the connections silent, half with an open stream.

    All their resources are released.
    """
    before = descriptors(server.process.pid)
    with ExitStack() as stack:
        for number in range(400):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.grpc_port))
            )
            if number % 2:
                connection.sendall(START + frame(HEADERS, END_HEADERS, 1, CALL))
        question(server)
    server.wait(
        lambda: descriptors(server.process.pid) <= before + 4, "the connections were closed"
    )
