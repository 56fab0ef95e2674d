"""A server with a Kafka broker, from its settings to its exit."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, run_mlserver

pytest.importorskip("confluent_kafka")

from support.kafka import Cluster


def test_requests_that_waited_for_the_server_are_answered(tmp_path: Path) -> None:
    with Cluster() as cluster:
        write_server_settings(
            tmp_path,
            kafka_enabled=True,
            kafka_servers=cluster.servers,
            server_name="ours",
            payload_log={"to": "payload.jsonl", "sample": 1.0},
        )
        write_model(tmp_path / "echo")
        cluster.ask({"inputs": [tensor("x", [1.5, 2.5])]}, b"early")
        with Server(tmp_path) as server:
            reply = cluster.answer()
            assert (reply.key, reply.body["id"]) == ("early", "early")
            assert reply.body["outputs"][0]["data"] == [1.5, 2.5]
            assert reply.headers["Ce-Inferenceservicename"] == "ours"
            assert (
                server.post("/v2/models/echo/infer", {"inputs": [tensor("x", [1.0])]}).status_code
                == 200
            )
            cluster.ask({"inputs": [tensor("x", [1.0])]}, model="missing")
            cluster.send(b"{}")  # without the header that names the model
            statuses = [int(reply.headers["mlserver-status"]) for reply in cluster.answers(2)]
            assert sorted(statuses) == [404, 422]
            errors = server.get("/v2/console/errors").json()["errors"]
            listed = {(entry["model"], entry["status"], entry["operation"]) for entry in errors}
            assert ("missing", 404, "Kafka mlserver-input") in listed
            assert ("", 422, "Kafka mlserver-input") in listed
        assert cluster.committed("ours") == 3
    events = [json.loads(line) for line in (tmp_path / "payload.jsonl").read_text().splitlines()]
    assert [(event["type"], event["id"]) for event in events[:2]] == [
        ("request", "early"),
        ("response", "early"),
    ]


def test_a_missing_library_is_an_error_with_the_install_command(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "confluent_kafka.py").write_text("raise ImportError('not here')")
    write_server_settings(tmp_path, kafka_enabled=True, http_port=0, grpc_port=0, metrics_port=0)
    write_model(tmp_path / "echo")
    code, output = run_mlserver(
        "start", str(tmp_path), env={"PYTHONPATH": str(tmp_path / "hidden")}
    )
    assert code != 0
    assert "pip install 'mlserver[kafka]'" in output
    assert "Traceback" not in output


class Forwarder:
    """Forward connections of a port to a broker, in threads, until the end of the block."""

    def __init__(self, port: int, address: str) -> None:
        self._port, self._address = port, address
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._start(self._accept)

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        host, _, port = self._address.rpartition(":")
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection((host, int(port)))
                self._sockets += (client, broker)
                self._start(self._copy, client, broker)
                self._start(self._copy, broker, client)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_broker_that_comes_later(tmp_path: Path) -> None:
    """Until the broker is reachable the server serves, and logs once what it waits for."""
    (port,) = free_ports(1)
    write_server_settings(
        tmp_path, kafka_enabled=True, kafka_servers=f"127.0.0.1:{port}", server_name="ours"
    )
    write_model(tmp_path / "echo")
    with Cluster() as cluster, Server(tmp_path) as server:
        server.wait_for_line(f"waiting for 127.0.0.1:{port} (connection refused)")
        assert (
            server.post("/v2/models/echo/infer", {"inputs": [tensor("x", [1.0])]}).status_code
            == 200
        )
        assert "Ready: Kafka" not in server.log
        cluster.ask({"inputs": [tensor("x", [1.5])]}, b"early")
        with Forwarder(port, cluster.servers):
            server.wait_for_line("Ready: Kafka at ")
            assert cluster.answer().key == "early"
            assert str(server.log).count("waiting for") == 1
            assert "ERROR" not in server.log
