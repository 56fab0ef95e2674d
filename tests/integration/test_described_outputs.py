"""Metadata describes the outputs (names, shapes, versions), and requests select declared columns
by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.model_cache import build_by_script
from support.repository import write_model, write_settings
from support.server import Server

RUNTIME = "mlserver_mlflow.MLflowRuntime"
COLUMNS = {"a": [0.0, 1.0, 2.0, 5.0], "b": [1.0, 0.0, 1.0, 3.0]}
INPUTS = [
    {"name": name, "shape": [4], "datatype": "FP64", "data": values}
    for name, values in COLUMNS.items()
]
SAVE = f"""
import sys
import warnings

warnings.simplefilter("ignore")
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LinearRegression

frame = pd.DataFrame({COLUMNS})
targets = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 9.0], [2.0, 1.0]])
columns = Schema([ColSpec("double", "u"), ColSpec("double", "v")])
signatures = {{
    "targets": (targets, ModelSignature(infer_signature(frame).inputs, columns)),
    "unnamed": (targets[:, 0], infer_signature(frame, targets[:, 0])),
}}
for name, (values, signature) in signatures.items():
    model = LinearRegression().fit(frame, values)
    folder = f"{{sys.argv[1]}}/{{name}}"
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["mlflow"])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("described")
    saved = build_by_script("described", SAVE)
    for name in "targets", "unnamed":
        parameters = {"uri": str(saved / name)}
        write_settings(folder / name, name=name, implementation=RUNTIME, parameters=parameters)
    for version in "1", "2":
        write_model(
            folder / f"echo-{version}",
            name="echo",
            implementation="echo_model.Echo",
            parameters={"version": version},
        )
    with Server(folder, workers=2) as running:
        yield running


def ask(server: Server, model: str, *names: str) -> list[dict[str, Any]]:
    answer = server.infer(
        model, INPUTS, **({"outputs": [{"name": name} for name in names]} if names else {})
    )
    assert answer.status_code == 200, answer.text
    outputs: list[dict[str, Any]] = answer.json()["outputs"]
    return outputs


def test_a_declared_column_is_found_by_its_name(server: Server) -> None:
    described = server.get("/v2/models/targets").json()["outputs"]
    assert [(tensor["name"], tensor["shape"]) for tensor in described] == [
        ("u", [-1, 1]),
        ("v", [-1, 1]),
    ]
    (whole,) = ask(server, "targets")
    assert whole["shape"] == [4, 2]
    v, u = ask(server, "targets", "v", "u")
    assert [(tensor["name"], tensor["shape"], tensor["datatype"]) for tensor in (v, u)] == [
        ("v", [4, 1], "FP64"),
        ("u", [4, 1], "FP64"),
    ]
    assert np.stack([u["data"], v["data"]], axis=1).ravel().tolist() == whole["data"]
    refused = server.infer("targets", INPUTS, outputs=[{"name": "w"}])
    assert refused.status_code == 400


def test_an_output_without_a_name_has_its_name_in_the_response(server: Server) -> None:
    (described,) = server.get("/v2/models/unnamed").json()["outputs"]
    (output,) = ask(server, "unnamed")
    assert (
        (described["name"], described["shape"])
        == (output["name"], [-1, output["shape"][1]])
        == ("output-1", [-1, 1])
    )
    assert ask(server, "unnamed", "output-1")[0]["data"] == output["data"]
    # The name in MLServer 1.x's metadata.
    assert ask(server, "unnamed", "output-0")[0]["data"] == output["data"]


def test_the_loaded_versions_are_listed(server: Server) -> None:
    for path in "/v2/models/echo", "/v2/models/echo/versions/1":
        assert server.get(path).json()["versions"] == ["1", "2"]
    assert server.get("/v2/models/unnamed").json()["versions"] == []
