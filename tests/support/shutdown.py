"""Requests to a server that shuts down, and its end."""

from __future__ import annotations

import json

import grpc
import httpx

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.chaos import wait_until_gone
from support.raw_http import Wire, wire
from support.repository import tensor
from support.server import STOP_LIMIT, Server, fetch


def readiness(server: Server) -> int:
    """Status code of the readiness endpoint over a new connection.

    0 = the connection was refused.
    """
    try:
        return fetch(f"{server.url}/v2/health/ready").status_code
    except httpx.TransportError:
        return 0


def assert_ends(server: Server, code: int = 0) -> None:
    """The server exits with this code without another signal, and no child process survives it."""
    assert server.process.wait(STOP_LIMIT) == code
    wait_until_gone(server.list_processes())


def request_of(action: str, argument: str) -> bytes:
    """An inference request of the chaos model as bytes."""
    body = json.dumps({"inputs": [tensor("x", [f"{action}:{argument}"], "BYTES")]}).encode()
    return b"POST /v2/models/chaos/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


def exchange(connection: Wire, argument: str) -> tuple[int, bool]:
    """Request an echo. Returns the status and whether the response closes the connection."""
    connection.send(request_of("echo", argument))
    status, headers, _ = connection.answer()
    return status, headers.get("connection") == "close"


def ask_over_grpc(channel: grpc.Channel, model: str, text: bytes) -> bool:
    contents = pb.InferTensorContents(bytes_contents=[text])
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="x", datatype="BYTES", shape=[1], contents=contents
    )
    request = pb.ModelInferRequest(model_name=model, inputs=[tensor])
    return bool(GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30).outputs)


def is_closed_by_response(connection: Wire) -> bool:
    """Send a request, which is answered; return whether its response closes the connection."""
    status, is_closed = exchange(connection, "a")
    assert status == 200
    return is_closed


def is_new_closed(port: int) -> bool:
    """The same over a new connection; False also if its process had ended it before the request."""
    try:
        with wire(port) as connection:
            return is_closed_by_response(connection)
    except (EOFError, ConnectionError):
        return False
