"""The alias watcher with a real MLflow registry.

An alias moves under load, to a broken model and on.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.mlflow_registry import MLflowRegistry
from support.repository import tensor
from support.server import Server, fetch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]

ROW = [tensor("x", [1.0], datatype="FP64", shape=[1, 1])]

SWAPS = {
    'model_swaps_total{model="wine",outcome="loaded",version=""} 2.0',
    'model_swaps_total{model="wine",outcome="failed",version=""} 1.0',
}

# Predicts only in the process that logs it.
REFUSES = """
import os

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Refuses(PythonModel):
    def predict(self, context, model_input, params=None):
        if "REFUSES_NOT" in os.environ:
            return model_input
        raise RuntimeError("no weights")


set_model(Refuses())
"""


class Callers(threading.Thread):
    """A client in a closed loop that records its responses."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="caller")
        self._url, self._enough = server.url, threading.Event()
        self.answers: list[tuple[int, Any]] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._enough.is_set():
                response = client.post("/v2/models/wine/infer", json={"inputs": ROW})
                self.answers.append((response.status_code, response.json()))

    def stop(self) -> list[tuple[int, Any]]:
        self._enough.set()
        self.join()
        return self.answers


def answers_of(server: Server) -> tuple[str, float]:
    answer = server.infer("wine", ROW).json()
    return answer["model_version"], answer["outputs"][0]["data"][0]


def test_an_alias_that_moves_under_load_loses_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MLflowRegistry(tmp_path)
    for version in (1, 2):
        registry.add("wine", float(version))
    monkeypatch.setenv("REFUSES_NOT", "1")
    (tmp_path / "refuses.py").write_text(REFUSES)
    registry.add("wine", 0.0, str(tmp_path / "refuses.py"))
    monkeypatch.delenv("REFUSES_NOT")
    registry.point("wine", "champion", 1)
    folder = tmp_path / "repository"
    (folder / "wine").mkdir(parents=True)
    parameters = {
        "uri": "models:/wine@champion",
        "extra": {"follow": 0.3, "cache_dir": str(tmp_path / "cache")},
    }
    settings = {
        "name": "wine",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": parameters,
    }
    (folder / "wine" / "model-settings.json").write_text(json.dumps(settings))

    with Server(folder, workers=2, env=registry.env, tracebacks=True) as server:
        assert answers_of(server) == ("1", 1.0)
        callers = [Callers(server) for _ in range(3)]
        for caller in callers:
            caller.start()
        registry.point("wine", "champion", 2)
        server.wait(lambda: answers_of(server)[0] == "2", "version 2 answered")

        registry.point("wine", "champion", 3)
        server.wait_for_line("fails on its input example")
        (entry,) = server.post("/v2/repository/index").json()
        assert entry["state"] == "READY"
        assert "no weights" in entry["reason"] or "input example" in entry["reason"]
        assert answers_of(server) == ("2", 2.0)

        registry.point("wine", "champion", 1)
        server.wait(lambda: answers_of(server)[0] == "1", "version 1 answered again")
        heard = [answer for caller in callers for answer in caller.stop()]
        # A swap is counted after the new version has answered.
        server.wait(
            lambda: set(fetch(f"{server.metrics_url}/metrics").text.splitlines()) >= SWAPS,
            "all swaps were counted",
        )
        assert server.get("/v2/models/wine").json()["parameters"]["source"] == "models:/wine/1"
        assert server.get("/v2/models/wine/mlflow/source?uri=models:/wine").status_code == 404

    assert {status for status, _ in heard} == {200}
    versions = {(answer["model_version"], answer["outputs"][0]["data"][0]) for _, answer in heard}
    assert versions == {("1", 1.0), ("2", 2.0)}
