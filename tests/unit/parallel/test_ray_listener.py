"""The port of a replica: authentication, deadlines, shares of time, leaving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlserver.parallel.ray.handshake import HandshakeError, prove_replica, prove_server
from mlserver.parallel.ray.listener import BUSY_WINDOW, BusyClock, ReplicaListener
from mlserver.parallel.ray.tcp import is_silent, set_tcp_options
from mlserver.parallel.worker.model_runner import ModelRunner
from support.virtual_time import Clock

SECRET = os.urandom(32)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """A connected pair: the server's and the replica's end."""
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    yield pair
    for end in pair:
        end.close()


async def test_equal_secrets(ends: Any) -> None:
    await asyncio.gather(prove_server(ends[0], SECRET), prove_replica(ends[1], SECRET))


async def test_a_server_with_another_secret_is_refused(ends: Any) -> None:
    server = asyncio.create_task(prove_server(ends[0], b"other"))
    with pytest.raises(HandshakeError, match="does not know the secret"):
        await prove_replica(ends[1], SECRET)
    ends[1].close()
    with pytest.raises(ConnectionError):
        await server


async def test_a_replica_that_repeats_the_servers_proof_is_refused(ends: Any) -> None:
    """The two proofs differ, so that neither end can answer with what it has received."""
    server = asyncio.create_task(prove_server(ends[0], SECRET))
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(ends[1], b"mlserv-1" + os.urandom(32))
    answer = await loop.sock_recv(ends[1], 64)
    await loop.sock_sendall(ends[1], answer[32:])
    with pytest.raises(HandshakeError):
        await server


async def test_another_protocol_is_refused(ends: Any) -> None:
    server = asyncio.create_task(prove_server(ends[0], SECRET))
    await asyncio.get_running_loop().sock_sendall(ends[1], b"HTTP/1.1 400 Bad Request" + b" " * 40)
    with pytest.raises(HandshakeError, match="no replica of this version"):
        await server


async def test_the_port_accepts_again_once_descriptors_are_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = ReplicaListener(ModelRunner(lambda *_: None), SECRET, dict, 1)
    address = await listener.open("127.0.0.1")
    client = socket.socket()
    client.setblocking(False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with caplog.at_level(logging.WARNING, "mlserver"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
            await asyncio.get_running_loop().sock_connect(client, address)
            async with asyncio.timeout(30):
                while "accepts no connection" not in caplog.text:  # noqa: ASYNC110 - a log line
                    await asyncio.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        async with asyncio.timeout(30):
            await prove_server(client, SECRET)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.close()
        await listener.leave(1)


def test_a_peer_that_does_not_read_is_not_silent() -> None:
    """Only a host that acknowledges nothing is (`processes/test_ray_network.py`)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        with end, peer:
            set_tcp_options(end)
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            with contextlib.suppress(BlockingIOError):
                while True:
                    end.send(bytes(65536))
            assert not is_silent(end)
    assert not is_silent(end)


def test_busy_clock() -> None:
    clock = Clock()
    busy = BusyClock(1, clock)
    assert (busy.get_share(), busy.get_oldest()) == (0, 0)
    call = busy.start()
    clock.now += BUSY_WINDOW / 2
    assert busy.get_share() == pytest.approx(0.5)
    assert busy.get_oldest() == pytest.approx(BUSY_WINDOW / 2)
    busy.end(call)
    assert (busy.running, busy.get_oldest()) == (0, 0)
    clock.now += BUSY_WINDOW / 4
    assert busy.get_share() == pytest.approx(0.5)
    clock.now += BUSY_WINDOW
    assert busy.get_share() == 0


def test_busy_clock_with_several_slots() -> None:
    clock = Clock()
    busy = BusyClock(4, clock)
    calls = [busy.start() for _ in range(2)]
    clock.now += 2 * BUSY_WINDOW
    assert busy.get_share() == pytest.approx(0.5)
    busy.end(calls[0])
    assert busy.running == 1
