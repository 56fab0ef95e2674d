"""Shutdown of a server in every state, by one or two signals, and by SIGKILL."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest

from mlserver.rest.http.timeouts import LAST_REQUEST_WAIT
from support.chaos import Chaos, infer_chaos, wait_until_gone, write_chaos
from support.connections import processes_of
from support.raw_http import Wire, wire
from support.server import STOP_LIMIT, Serve, Server
from support.shutdown import (
    ask_over_grpc,
    assert_ends,
    exchange,
    is_closed_by_response,
    is_new_closed,
    readiness,
    request_of,
)
from support.slow import slow

HANGING_WORKER = """
import pathlib, sys, time
if "mlserver.parallel.worker.worker" in sys.orig_argv:
    pathlib.Path(__file__).with_name("hangs").touch()
    time.sleep(1e6)
"""


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


@pytest.mark.parametrize(
    "workers, number",
    [slow(0, signal.SIGTERM), (1, signal.SIGTERM), (0, signal.SIGINT), slow(1, signal.SIGQUIT)],
)
def test_stop_while_idle(
    serve: Serve, tmp_path: Path, chaos: Chaos, workers: int, number: signal.Signals
) -> None:
    server = serve(tmp_path, workers=workers)
    server.process.send_signal(number)

    assert_ends(server)


def test_stop_while_workers_do_not_start(
    serve: Serve, chaos: Chaos, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    libraries = tmp_path_factory.mktemp("libraries")
    (libraries / "sitecustomize.py").write_text(HANGING_WORKER)
    env = {"PYTHONPATH": str(libraries), "MLSERVER_WORKER_START": "fresh"}
    server = serve(tmp_path, workers=2, ready=None, env=env)
    server.wait(lambda: (libraries / "hangs").exists(), "a worker was starting")
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_stop_while_loading(serve: Serve, tmp_path: Path, chaos: Chaos, workers: int) -> None:
    chaos.add_marker("block-load")
    server = serve(tmp_path, workers=workers, ready="/v2/health/live")
    server.wait(lambda: chaos.has_marker("loading"), "the model was loading")
    assert readiness(server) == 400
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


def test_stop_with_requests_in_flight(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """The server is not ready at once; accepted requests are answered."""
    server = serve(tmp_path, workers=1)
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(infer_chaos, server, "wait", name) for name in "ab"]
        server.wait(
            lambda: chaos.has_marker("started-a") and chaos.has_marker("started-b"),
            "the requests ran",
        )
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        assert server.process.poll() is None
        chaos.add_marker("go-a")
        chaos.add_marker("go-b")

        assert [call.result(timeout=20) for call in calls] == [(200, "a"), (200, "b")]
    assert_ends(server)


def test_a_second_signal_stops_at_once(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(infer_chaos, server, "block", "a")
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        server.process.send_signal(signal.SIGTERM)
        assert_ends(server)
        error = call.exception(timeout=20)
        assert error is None or isinstance(error, httpx.TransportError)


def test_the_drain_has_a_limit(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(
        tmp_path,
        workers=1,
        env={"MLSERVER_DRAIN_TIMEOUT": "0.5", "MLSERVER_PARALLEL_WORKERS_TIMEOUT": "1"},
    )
    with ThreadPoolExecutor(1) as callers:
        callers.submit(infer_chaos, server, "block", "a")
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        assert_ends(server)
    server.wait_for_line("requests still run")


def test_stop_with_dead_workers(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2)
    chaos.add_marker("block-load")  # replacements never get ready either
    for pid in server.workers:
        os.kill(pid, signal.SIGKILL)
    server.wait_until("/v2/health/ready", 400)
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


def test_stop_with_a_stuck_worker(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(
        tmp_path,
        workers=1,
        env={"MLSERVER_REQUEST_TIMEOUT": "600", "MLSERVER_DRAIN_TIMEOUT": "0.5"},
    )
    (pid,) = server.workers
    os.kill(pid, signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)

    assert_ends(server)


def test_stop_with_a_silent_connection_to_the_grpc_port(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    """A TCP probe that stays connected does not delay the stop until `drain_timeout`."""
    server = serve(tmp_path, workers=1, env={"MLSERVER_DRAIN_TIMEOUT": "600"})
    with socket.create_connection(("127.0.0.1", server.grpc_port)):
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            assert ask_over_grpc(channel, "chaos", b"echo:x")  # accepted after the silent one
        server.process.send_signal(signal.SIGTERM)
        assert_ends(server)


@pytest.mark.parametrize("busy", [slow(False), True])
def test_workers_exit_when_the_server_is_killed(tmp_path: Path, chaos: Chaos, busy: bool) -> None:
    """The workers exit by themselves, even one that is stuck in its model."""
    server = Server(tmp_path, workers=2)
    server.__enter__()
    with ThreadPoolExecutor(1) as callers:
        workers = server.workers
        if busy:
            callers.submit(infer_chaos, server, "block", "a")
            server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        server.process.kill()
        server.process.wait(STOP_LIMIT)
        wait_until_gone(workers)
    assert len(workers) == 2
    server.stop()


# -- the last responses of a connection --


@pytest.mark.parametrize("http_workers", [slow("1"), "2"])
def test_responses_after_the_signal_close_their_connections(
    serve: Serve, tmp_path: Path, chaos: Chaos, http_workers: str
) -> None:
    """On existing and on new connections, while the port is still open.

    That is one process's port, which a running request keeps open. Another process closes its
    connections after `LAST_REQUEST_WAIT`, with or without a request.
    """
    server = serve(tmp_path, workers=1, env={"MLSERVER_HTTP_WORKERS": http_workers})
    port = server.http_port
    with ExitStack() as stack:
        scraper = stack.enter_context(wire(server.metrics_port))
        busy = stack.enter_context(wire(port))
        process = get_process(server, busy)
        idle = busy
        while idle is busy or get_process(server, idle) != process:
            idle = stack.enter_context(wire(port))

        busy.send(request_of("wait", "a"))
        server.wait(lambda: chaos.has_marker("started-a"), "the request ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        # Each HTTP worker process learns of the shutdown by itself.
        server.wait(lambda: is_closed_by_response(idle), "a response closed the connection")
        server.wait(lambda: is_new_closed(port), "a response closed a new connection")
        scraper.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert scraper.answer()[1]["connection"] == "close"
        chaos.add_marker("go-a")
        assert busy.answer()[:1] == (200,)
    assert_ends(server)


def get_process(server: Server, connection: Wire) -> int:
    """The process that serves a connection, after a request on it."""
    assert exchange(connection, "before") == (200, False)
    (process,) = processes_of(server, server.http_port, connection.socket.getsockname()[1])
    return process


def test_pipelined_requests_are_all_answered(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """Only the last response closes the connection."""
    server = serve(tmp_path, workers=1)
    with wire(server.http_port) as connection:
        connection.send(request_of("wait", "a") + request_of("echo", "b") + request_of("echo", "c"))
        server.wait(lambda: chaos.has_marker("started-a"), "the first request ran")
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: readiness(server) != 200, "the server was not ready any more")
        chaos.add_marker("go-a")
        answers = [connection.answer() for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert [headers.get("connection") for _, headers, _ in answers] == [None, None, "close"]
    assert_ends(server)


def wait_until_refused(port: int) -> float:
    """Return when the port refuses connections: when the last one that was accepted began.

    A server that is about to close its port ignores new connections, and the kernel repeats an
    ignored
    SYN after 1 s: too late for `LAST_REQUEST_WAIT`, so each attempt has a short timeout.
    """
    accepted = time.monotonic()
    deadline = accepted + STOP_LIMIT
    while time.monotonic() < deadline:
        started = time.monotonic()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.05).close()
            accepted = started
        except (ConnectionRefusedError, ConnectionResetError):
            return accepted
        except TimeoutError:
            continue
        time.sleep(0.005)
    raise AssertionError(f"port {port} accepts connections after {STOP_LIMIT} s")


def test_an_idle_connection_may_bring_one_more_request(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    """The port is closed, and for `LAST_REQUEST_WAIT` seconds a request on an idle connection is
    answered.

    If this process was too slow to send the request in that time, another server is tried.
    """
    for _ in range(10):
        server = serve(tmp_path, workers=1)
        with wire(server.http_port) as connection, wire(server.http_port) as silent:
            assert exchange(connection, "before") == (200, False)
            server.process.send_signal(signal.SIGTERM)
            accepted = wait_until_refused(server.http_port)
            connection.send(request_of("echo", "after"))
            is_in_time = time.monotonic() - accepted < LAST_REQUEST_WAIT
            if is_in_time:
                status, headers, _ = connection.answer()
                assert (status, headers.get("connection")) == (200, "close")
                silent.ended()
        assert_ends(server)
        if is_in_time:
            return
    pytest.skip(f"this machine was too slow to send a request within {LAST_REQUEST_WAIT} s")


# -- service after the signal --


@pytest.mark.parametrize("http_workers", [slow("1"), "2"])
def test_requests_are_served_during_the_shutdown_delay(
    serve: Serve, tmp_path: Path, chaos: Chaos, http_workers: str
) -> None:
    """The server is not ready, but answers new connections; a second signal ends the delay."""
    env = {"MLSERVER_SHUTDOWN_DELAY": "600", "MLSERVER_HTTP_WORKERS": http_workers}
    server = serve(tmp_path, workers=1, env=env)
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: readiness(server) not in (0, 200), "the server was not ready any more")
    server.wait(
        lambda: all(is_new_closed(server.http_port) for _ in range(20)),
        "the responses of all processes closed their connections",
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        assert ask_over_grpc(channel, "chaos", b"echo:x")
    server.process.send_signal(signal.SIGTERM)
    assert_ends(server)


def test_the_shutdown_delay_ends(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=1, env={"MLSERVER_SHUTDOWN_DELAY": "0.5"})
    server.process.send_signal(signal.SIGTERM)
    assert_ends(server)
