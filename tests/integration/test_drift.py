"""`mlserver drift` on the payload log of a running server with an MLflow model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.models import WINE, Models
from support.repository import write_server_settings, write_settings
from support.server import Server, run_mlserver

ROWS, PER_REQUEST = 500, 25


def draw(seed: int, shifted: str = "") -> list[list[float]]:
    """Rows of the wine model's columns; one column is two standard deviations higher."""
    random = np.random.default_rng(seed)
    columns = []
    for name, value in WINE.items():
        spread = abs(value) * 0.1 or 0.1
        mean = value + 2 * spread * (name == shifted)
        columns.append(random.normal(mean, spread, ROWS))
    rows: list[list[float]] = np.stack(columns, axis=1).tolist()
    return rows


def send(server: Server, rows: list[list[float]]) -> list[float]:
    """Score rows over /invocations. Returns the predictions."""
    predictions: list[float] = []
    for start in range(0, len(rows), PER_REQUEST):
        table = {"columns": list(WINE), "data": rows[start : start + PER_REQUEST]}
        response = server.post("/invocations", {"dataframe_split": table})
        assert response.status_code == 200
        predictions += response.json()["predictions"]
    return predictions


@pytest.fixture(scope="module")
def logs(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log `same.jsonl`, `shifted.jsonl`, and the table `reference.csv`."""
    folder = tmp_path_factory.mktemp("drift")
    for name, shifted in (("same", ""), ("shifted", "alcohol")):
        root = folder / name
        write_server_settings(
            root, payload_log={"to": str(folder / f"{name}.jsonl"), "sample": 1.0}
        )
        write_settings(
            root / "wine",
            implementation="mlserver_mlflow.MLflowRuntime",
            parameters={"uri": str(models["wine"])},
        )
        with Server(root) as server:
            predictions = send(server, draw(1, shifted))
            (folder / f"{name}.json").write_text(json.dumps(predictions))
            if not shifted:
                write_reference(folder / "reference.csv", server)
                path = folder / "same.jsonl"
                lines = path.read_text().splitlines()[: 2 * ROWS // PER_REQUEST]
        if not shifted:  # without the requests of the reference
            path.write_text("\n".join(lines) + "\n")
    return folder


def write_reference(path: Path, server: Server) -> None:
    rows = draw(2)
    predictions = send(server, rows)
    lines = [",".join([*WINE, "prediction"])]
    lines += [
        ",".join(map(str, [*row, prediction]))
        for row, prediction in zip(rows, predictions, strict=True)
    ]
    path.write_text("\n".join(lines))


def drift(logs: Path, name: str) -> tuple[int, dict[str, Any]]:
    code, output = run_mlserver(
        "drift",
        str(logs / f"{name}.jsonl"),
        "--reference",
        str(logs / "reference.csv"),
        "--json",
        "--fail-above",
        "0.2",
    )
    return code, json.loads(output[: output.rindex("}") + 1])


@pytest.mark.slow
def test_no_drift_is_reported_where_there_is_none(logs: Path) -> None:
    code, document = drift(logs, "same")
    assert (code, document["rows"], document["reference_rows"]) == (0, ROWS, ROWS)
    verdicts = {column["name"]: column["verdict"] for column in document["inputs"]}
    assert verdicts.keys() == WINE.keys()
    assert "shifted" not in verdicts.values()
    (output,) = document["outputs"]
    assert output["psi"] < 0.2


@pytest.mark.slow
def test_a_planted_shift_is_reported(logs: Path) -> None:
    code, document = drift(logs, "shifted")
    assert code == 3
    shifted = [column["name"] for column in document["inputs"] if column["verdict"] == "shifted"]
    assert shifted == ["alcohol"]
    (output,) = document["outputs"]
    predictions = json.loads((logs / "shifted.json").read_text())
    assert output["mean"] == pytest.approx(np.mean(predictions))
    assert (output["count"], output["note"]) == (ROWS, "")
