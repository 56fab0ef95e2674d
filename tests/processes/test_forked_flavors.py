"""Forked workers of each installed flavor predict what an unforked process does, and never hang.

Each model loads and predicts in a fork of a template, and again in the fork that replaces it. A
fork that hangs exceeds the client's time limit. One worker runs with pools of four OpenMP threads,
however many processors the machine has; two workers with the numbers that the server chooses.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support import survey_models
from support.server import Server, read_name

NAMES = ("a", "b", "c", "d")
# Models of these are in the survey where they are installed (not TensorFlow: 600 MB to install).
LIBRARIES = {
    "sklearn": "histogram",
    "xgboost": "xgboost-threads",
    "lightgbm": "lightgbm-threads",
    "catboost": "catboost",
    "torch": "pytorch",
    "onnxruntime": "onnx",
}
THREADS = 4
LIMIT = 60.0  # seconds for one request; a hang never ends


@pytest.fixture(scope="module")
def folder() -> Path:
    return survey_models.build()


@pytest.fixture(scope="module", params=[(1, {"OMP_NUM_THREADS": str(THREADS)}), (2, {})])
def server(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("survey") / "models"
    shutil.copytree(folder, repository, ignore=shutil.ignore_patterns("*.json", "*.db", ".*"))
    workers, variables = request.param
    with Server(repository, workers=workers, env=variables) as running:
        yield running


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_survey_has_a_model_of_each_library(folder: Path, library: str) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed in this environment")
    assert LIBRARIES[library] in json.loads((folder / "answers.json").read_text())


def predict(server: Server, name: str) -> Any:
    """The predictions for all rows by the format of V2, which takes the fast path."""
    columns = zip(NAMES, zip(*survey_models.ROWS, strict=True), strict=True)
    inputs = [
        {"name": column, "shape": [len(values)], "datatype": "FP64", "data": list(values)}
        for column, values in columns
    ]
    response = server.client.post(
        f"/v2/models/{name}/infer", json={"inputs": inputs}, timeout=LIMIT
    )
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"]


def check_all(server: Server, answers: dict[str, Any]) -> None:
    """Every model answers as without a fork, several requests at a time, on every worker."""
    with ThreadPoolExecutor(4) as callers:
        for name, expected in answers.items():
            results = list(callers.map(lambda _, name=name: predict(server, name), range(8)))
            assert results == [expected] * 8, name


@pytest.mark.slow
def test_forked_workers_answer_as_an_unforked_process(server: Server, folder: Path) -> None:
    answers = json.loads((folder / "answers.json").read_text())
    assert answers
    assert {read_name(pid) for pid in server.workers} == {"mlserver-worker"}
    check_all(server, answers)
    if len(server.workers) == 1:
        assert len(os.listdir(f"/proc/{server.workers[0]}/task")) > THREADS

    before = server.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    server.wait(
        lambda: len(server.workers) == len(before) and not set(server.workers) & set(before),
        "the workers were replaced",
    )
    server.wait_until("/v2/health/ready")
    assert {read_name(pid) for pid in server.workers} == {"mlserver-worker"}
    check_all(server, answers)
    assert "new interpreters" not in server.log
