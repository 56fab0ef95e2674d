"""The end of a server: asked for in every state it can be in, or done to it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.chaos import Chaos, ask, wait_until_gone, write_chaos
from support.server import STOP_LIMIT, Serve, Server


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


def readiness(server: Server) -> int:
    """Status of a new connection's question; 0 = nobody listens any more."""
    try:
        return httpx.get(f"{server.url}/v2/health/ready").status_code
    except httpx.TransportError:
        return 0


def assert_ends(server: Server, code: int = 0) -> None:
    """Without another signal, with this code, and with no process left."""
    assert server.process.wait(STOP_LIMIT) == code
    wait_until_gone(server.family())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("workers", [0, 1])
def test_idle(serve: Serve, tmp_path: Path, chaos: Chaos, workers: int, number: signal.Signals) -> None:
    server = serve(tmp_path, workers=workers)
    server.process.send_signal(number)

    assert_ends(server)


@pytest.mark.parametrize("workers", [0, 2])
def test_while_loading(serve: Serve, tmp_path: Path, chaos: Chaos, workers: int) -> None:
    chaos.put("block-load")
    server = serve(tmp_path, workers=workers, ready="/v2/health/live")
    server.wait(lambda: chaos.told("loading"), "the model was loading")
    assert readiness(server) == 400
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


def test_with_requests_in_flight(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """Not ready at once; what was accepted is answered."""
    server = serve(tmp_path, workers=1)
    with ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(ask, server, "wait", name) for name in "ab"]
        server.wait(lambda: chaos.told("started-a") and chaos.told("started-b"), "the requests ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        assert server.process.poll() is None
        chaos.put("go-a")
        chaos.put("go-b")

        assert [one.result(timeout=20) for one in asked] == [(200, "a"), (200, "b")]
    assert_ends(server)


def test_a_second_signal_does_not_wait(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1)
    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(ask, server, "block", "a")
        server.wait(lambda: chaos.told("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        server.process.send_signal(signal.SIGTERM)
        assert_ends(server)
        problem = asked.exception(timeout=20)
        assert problem is None or isinstance(problem, httpx.TransportError)


def test_the_drain_has_a_limit(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1, env={"MLSERVER_DRAIN_TIMEOUT": "0.5", "MLSERVER_PARALLEL_WORKERS_TIMEOUT": "1"})
    with ThreadPoolExecutor(1) as callers:
        callers.submit(ask, server, "block", "a")
        server.wait(lambda: chaos.told("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        assert_ends(server)
    assert "requests still run" in server.log


def test_with_dead_workers(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2)
    chaos.put("block-load")  # and their replacements never get ready
    for pid in server.workers:
        os.kill(pid, signal.SIGKILL)
    server.wait_until("/v2/health/ready", 400)
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


def test_with_a_stuck_worker(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1, env={"MLSERVER_REQUEST_TIMEOUT": "600", "MLSERVER_DRAIN_TIMEOUT": "0.5"})
    (pid,) = server.workers
    os.kill(pid, signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


@pytest.mark.parametrize("busy", [False, True])
def test_the_server_itself_is_killed(tmp_path: Path, chaos: Chaos, busy: bool) -> None:
    """Its workers end by themselves, even one that is stuck in its model."""
    server = Server(tmp_path, workers=2)
    server.__enter__()
    with ThreadPoolExecutor(1) as callers:
        workers = server.workers
        if busy:
            callers.submit(ask, server, "block", "a")
            server.wait(lambda: chaos.told("started-a"), "the request ran")
        server.process.kill()
        server.process.wait(STOP_LIMIT)
        wait_until_gone(workers)
    assert len(workers) == 2
    server.stop()
