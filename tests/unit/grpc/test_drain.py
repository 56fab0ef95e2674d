"""A drain of the gRPC server, with clients that do not react to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest

from mlserver.grpc import server as grpc_server
from support.http2 import CALL, DATA, END_HEADERS, HEADERS, START, frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds sockets in /proc")
# What a client has sent before it stops to react.
SENT = {
    "no call": START,
    "a call without its message": START + frame(HEADERS, END_HEADERS, 1, CALL),
    "a part of a message": START
    + frame(HEADERS, END_HEADERS, 1, CALL)
    + frame(DATA, 0, 1, b"\0\0\0\0\x40abc"),
}


async def test_clients_that_do_not_react_do_not_delay_a_drain(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's library waits for the reply to its GOAWAY, and for the rest of each request."""
    monkeypatch.setattr(grpc_server, "DISCONNECT_SECONDS", 0.2)
    server = (await start()).server

    def connect(sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(sent)
        assert connection.recv(1)  # the server's SETTINGS
        return connection

    with contextlib.ExitStack() as stack:
        for sent in SENT.values():
            stack.enter_context(await asyncio.to_thread(connect, sent))
        async with asyncio.timeout(15):
            await server.drain()
