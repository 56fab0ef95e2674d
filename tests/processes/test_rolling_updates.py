"""A rolling update: servers are stopped one after the other under load."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest

from soak.rolling import restart_all
from support.chaos import Chaos, write_chaos
from support.raw_http import Wire
from support.server import Serve, Server
from support.shutdown import ask_over_grpc, assert_ends, exchange


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


class Callers:
    """Clients in a closed loop that switch to the next server when a connection is refused."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.answered = [0] * len(servers)
        self.lost: list[str] = []
        self.over = threading.Event()

    def were_answered_by(self, place: int) -> bool:
        return self.answered[place] > 50

    def talk_over_rest(self, keeps: bool, pause: float) -> None:
        connection: Wire | None = None
        place = 0
        while not self.over.is_set():
            if connection is None:
                try:
                    connection = Wire(self.servers[place].http_port)
                except ConnectionRefusedError:
                    place += 1
                    continue
            try:
                status, closes = exchange(connection, "x")
                if status != 200:
                    self.lost.append(f"server {place}: status {status}")
                self.answered[place] += 1
            except (EOFError, OSError) as error:
                self.lost.append(f"server {place}: {error!r}")
                closes = True
            if closes or not keeps:
                connection.socket.close()
                connection = None
            if pause:
                time.sleep(random.uniform(0, pause))
        if connection is not None:
            connection.socket.close()

    def talk_over_grpc(self, keeps: bool, pause: float) -> None:
        channel: grpc.Channel | None = None
        place = 0
        while not self.over.is_set():
            if channel is None:
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = grpc.insecure_channel(
                    f"127.0.0.1:{self.servers[place].grpc_port}", options
                )
            try:
                ask_over_grpc(channel, "chaos", b"echo:x")
                self.answered[place] += 1
                closes = not keeps
            except grpc.RpcError as error:
                closes = True
                if "Failed to connect" in error.details():
                    place += 1
                else:
                    self.lost.append(f"server {place}: {error.code()} {error.details()}")
            if closes:
                channel.close()
                channel = None
            if pause:
                time.sleep(random.uniform(0, pause))
        if channel is not None:
            channel.close()


UPDATES = 2


# Clients by protocol: (whether they keep their connection, limit of the random pause in seconds).
REST_CLIENTS = [(True, 0.0), (True, 0.0), (True, 0.02), (True, 0.2), (False, 0.0), (False, 0.02)]
GRPC_CLIENTS = [(True, 0.0), (True, 0.0), (True, 0.02), (True, 0.2), (False, 0.02)]


@pytest.mark.slow
@pytest.mark.parametrize("http_workers", ["1", "2"])
def test_a_rolling_update_loses_nothing(
    serve: Serve, tmp_path: Path, chaos: Chaos, http_workers: str
) -> None:
    """Servers are stopped one after the other under load of both protocols.

    Every request that was sent is answered.
    """
    env = {"MLSERVER_HTTP_WORKERS": http_workers}
    servers = [serve(tmp_path, workers=1, env=env, ready=None) for _ in range(UPDATES + 1)]
    for server in servers:
        server.wait_until("/v2/health/ready")
    rest, grpc_ = Callers(servers), Callers(servers)
    clients = [(rest.talk_over_rest, client) for client in REST_CLIENTS]
    clients += [(grpc_.talk_over_grpc, client) for client in GRPC_CLIENTS]

    def are_answered_by(place: int) -> bool:
        return rest.were_answered_by(place) and grpc_.were_answered_by(place)

    with ThreadPoolExecutor(len(clients)) as pool:
        talking = [pool.submit(talk, *client) for talk, client in clients]
        try:
            for number, server in enumerate(servers[:-1]):
                server.wait(partial(are_answered_by, number), "the clients were answered")
                server.process.send_signal(signal.SIGTERM)
                assert_ends(server)
            servers[-1].wait(partial(are_answered_by, UPDATES), "the clients were answered")
        finally:
            rest.over.set()
            grpc_.over.set()
        for client in talking:
            client.result(timeout=30)
    assert rest.lost + grpc_.lost == []


@pytest.mark.slow
@pytest.mark.parametrize("http_workers", [1, 2])
def test_a_rolling_restart_as_kubernetes_does_it(tmp_path: Path, http_workers: int) -> None:
    """Replacements join one address while connections to the old servers are kept.

    `make rolling TIMES=20` repeats it.
    """
    clients = asyncio.run(restart_all(tmp_path, http_workers))
    assert clients.lost == []
