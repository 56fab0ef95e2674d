"""A whole server at a Kafka broker: from its settings to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Server, run_mlserver

pytest.importorskip("confluent_kafka")

from support.kafka import Cluster


def test_requests_that_waited_for_the_server_are_answered(tmp_path: Path) -> None:
    with Cluster() as cluster:
        write_server_settings(tmp_path, kafka_enabled=True, kafka_servers=cluster.servers, server_name="ours")
        write_model(tmp_path / "echo")
        cluster.ask({"inputs": [tensor("x", [1.5, 2.5])]}, b"early")
        with Server(tmp_path) as server:
            found = cluster.answer()
            assert (found.key, found.body["id"]) == ("early", "early")
            assert found.body["outputs"][0]["data"] == [1.5, 2.5]
            assert found.headers["Ce-Inferenceservicename"] == "ours"
            assert server.post("/v2/models/echo/infer", {"inputs": [tensor("x", [1.0])]}).status_code == 200
        assert cluster.committed("ours") == 1


def test_without_the_library_the_start_ends_with_the_command_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "confluent_kafka.py").write_text("raise ImportError('not here')")
    write_server_settings(tmp_path, kafka_enabled=True, http_port=0, grpc_port=0, metrics_port=0)
    write_model(tmp_path / "echo")
    code, output = run_mlserver("start", str(tmp_path), env={"PYTHONPATH": str(tmp_path / "hidden")})
    assert code != 0
    assert "pip install 'mlserver[kafka]'" in output
    assert "Traceback" not in output
