"""What can stand behind `mlserver start`, and which of several settings counts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.models import WINE, Models
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, clean_environment, run_mlserver

COLUMNS = [tensor(name, [value], "FP64") for name, value in WINE.items()]


class Started(Server):
    """`mlserver start` with other arguments; `PORT` stands for the free port that the test asks at."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, env=env)
        own = [str(self.http_port) if argument == "PORT" else argument for argument in arguments]
        self._command = [*self._command[:-1], *own]


def test_a_uri_is_served_without_a_folder(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, models["wine"].as_uri()) as server:
        answer = server.infer("wine", COLUMNS).json()
        assert answer["outputs"][0]["data"] == [models.wine_answer]
        assert [model["name"] for model in server.post("/v2/repository/index").json()] == ["wine"]


REGISTER = """
import sys
import warnings

warnings.simplefilter("ignore")  # MLflow's advice to the author of a model
import mlflow

with mlflow.start_run() as run:
    mlflow.log_artifacts(sys.argv[1], "model")
client = mlflow.MlflowClient()
client.create_registered_model("red-wine")
version = client.create_model_version("red-wine", f"runs:/{run.info.run_id}/model", run.info.run_id)
client.set_registered_model_alias("red-wine", "champion", version.version)
"""


def test_a_registered_model_is_served_by_its_alias(models: Models, tmp_path: Path) -> None:
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-c", REGISTER, str(models["wine"])]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(tracking), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with Started(tmp_path, "models:/red-wine@champion", env=tracking) as server:
        answer = server.infer("red-wine", COLUMNS).json()
        assert answer["outputs"][0]["data"] == [models.wine_answer]


def test_the_model_is_named(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, models["wine"].as_uri(), "--name", "red") as server:
        assert server.get("/v2/models/red/ready").status_code == 200


def test_the_folder_of_an_mlflow_model_is_named(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, str(models["wine"]), "--name", "red") as server:
        assert server.get("/v2/models/red/ready").status_code == 200


def test_mlflow_models_without_settings_are_pointed_at(models: Models, tmp_path: Path) -> None:
    """The start says what to write, and what it says is enough."""
    for name in ("red", "white"):
        shutil.copytree(models["wine"], tmp_path / name)
    with Started(tmp_path, str(tmp_path)) as server:
        (line,) = [line for line in str(server.log).splitlines() if "MLflow" in line]
        assert "an MLflow model in red and 1 more" in line
        written = re.search(r"write (\{.*\}) to (\S+)", line)
        assert written is not None
        (tmp_path / written[2]).write_text(written[1])
        assert server.post("/v2/repository/models/red/load").status_code == 200
        assert server.infer("red", COLUMNS).json()["outputs"][0]["data"] == [models.wine_answer]


def test_flags_beat_the_file(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_server_settings(tmp_path, http_port=1, host="192.0.2.1", parallel_workers=3, server_name="from-the-file")
    with Started(tmp_path, str(tmp_path), "--http-port", "PORT", "--host", "127.0.0.1", "--workers", "0") as server:
        assert server.get("/v2").json()["name"] == "from-the-file"
        assert server.workers == []


def test_the_number_of_front_ends_is_a_flag_too(tmp_path: Path) -> None:
    code, printed = run_mlserver("start", str(tmp_path), "--http-workers", "2", "--workers", "0")

    assert code == 2
    assert "http_workers" in printed
    assert run_mlserver("start", str(tmp_path), "--http-workers", "0")[0] == 2
