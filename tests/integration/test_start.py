"""Arguments of `mlserver start`, and the precedence of settings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.models import Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server, clean_environment, run_mlserver
from support.slow import slow

# An input of the model `array`, which doubles it. Without scikit-learn it loads in half the time.
INPUTS = [tensor("x", [1.0, 2.0, 3.0], "FP64", [1, 3])]
DOUBLED = [2.0, 4.0, 6.0]


class Started(Server):
    """`mlserver start` with other arguments; `PORT` is replaced by the test's port."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        ready: str | None = "/v2/health/ready",
    ) -> None:
        super().__init__(folder, env=env, ready=ready)
        own = [str(self.http_port) if argument == "PORT" else argument for argument in arguments]
        self._command = [*self._command[:-1], *own]


def test_a_uri_is_served_without_a_folder(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, models["array"].as_uri()) as server:
        answer = server.infer("array", INPUTS).json()
        assert answer["outputs"][0]["data"] == DOUBLED
        assert [model["name"] for model in server.post("/v2/repository/index").json()] == ["array"]


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


@pytest.mark.slow
def test_a_registered_model_is_served_by_its_alias(models: Models, tmp_path: Path) -> None:
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-c", REGISTER, str(models["array"])]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment(tracking),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Started(tmp_path, "models:/red-wine@champion", env=tracking) as server:
        answer = server.infer("red-wine", INPUTS).json()
        assert answer["outputs"][0]["data"] == DOUBLED


@pytest.mark.slow
def test_the_model_is_named(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, models["array"].as_uri(), "--name", "red") as server:
        assert server.get("/v2/models/red/ready").status_code == 200


@pytest.mark.slow
def test_the_folder_of_an_mlflow_model_needs_no_settings(models: Models, tmp_path: Path) -> None:
    with Started(tmp_path, str(models.copy("array", tmp_path / "doubles"))) as server:
        answer = server.infer("doubles", INPUTS).json()
        assert answer["outputs"][0]["data"] == DOUBLED
        scored = server.post("/invocations", {"inputs": [[1.0, 2.0, 3.0]]})
        assert scored.json() == {"predictions": [DOUBLED]}


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_a_folder_of_mlflow_models_is_served_without_settings_files(
    models: Models, tmp_path: Path, workers: int
) -> None:
    """Names are those of the folders, versions those of folders with numbers.

    Load, unload and index use them.
    """
    for folder in ("wine/1", "wine/2", "team/red"):
        shutil.copytree(models["array"], tmp_path / folder)
    (tmp_path / "linked").symlink_to(models["array"])
    with Started(tmp_path, str(tmp_path), "--workers", str(workers)) as server:
        server.wait_for_line("found 4 MLflow models without model-settings.json")
        server.wait_for_line("linked, red, wine (1, 2)")
        assert index(server) == {
            "wine/1": "READY",
            "wine/2": "READY",
            "red": "READY",
            "linked": "READY",
        }
        for path in ("red", "linked", "wine", "wine/versions/1"):
            assert server.infer(path, INPUTS).json()["outputs"][0]["data"] == DOUBLED
        assert server.infer("wine", INPUTS).json()["model_version"] == "2"

        assert server.post("/v2/repository/models/red/unload").status_code == 200
        assert server.infer("red", INPUTS).status_code == 404
        assert index(server)["red"] == "UNAVAILABLE"
        assert server.post("/v2/repository/models/red/load").status_code == 200
        shutil.copytree(models["array"], tmp_path / "late")
        assert server.post("/v2/repository/models/late/load").status_code == 200
        shutil.rmtree(tmp_path / "wine" / "2")
        assert server.post("/v2/repository/models/wine/load").status_code == 200
        assert set(index(server)) == {"wine/1", "red", "linked", "late"}
        assert server.infer("wine", INPUTS).json()["model_version"] == "1"


@pytest.mark.slow
def test_settings_files_beside_mlflow_models_without_any(models: Models, tmp_path: Path) -> None:
    shutil.copytree(models["array"], tmp_path / "files" / "red")
    shutil.copytree(models["array"], tmp_path / "white")
    settings = {
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "../files/red"},
    }
    write_settings(tmp_path / "described", name="wine", **settings)
    with Started(tmp_path, str(tmp_path)) as server:
        assert index(server) == {"wine": "READY", "white": "READY"}
        assert server.infer("white", INPUTS).json()["outputs"][0]["data"] == DOUBLED


@pytest.mark.slow
def test_one_name_for_two_models_is_rejected(models: Models, tmp_path: Path) -> None:
    for folder in ("a/model", "b/model", "red"):
        shutil.copytree(models["array"], tmp_path / folder)
    with Started(tmp_path, str(tmp_path), ready="/v2/models/red/ready") as server:
        server.wait_for_line("Not ready")
        server.wait_for_line("Model 'model' could not be loaded")
        server.wait_for_line("a/model and b/model")
        assert server.get("/v2/health/ready").status_code != 200
        reasons = {
            item["name"]: item["reason"] for item in server.post("/v2/repository/index").json()
        }
        assert "a/model and b/model" in reasons["model"]


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize("content", [slow(None), "README.md", slow(".hidden/MLmodel")])
def test_a_folder_without_models_is_an_error(
    tmp_path: Path, command: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / content).parent.mkdir(exist_ok=True)
        (tmp_path / content).touch()
    code, printed = run_mlserver(command, str(tmp_path))

    assert code == 2
    (line,) = printed.splitlines()
    assert f"{tmp_path}: no models found" in line
    assert "MLmodel" in line
    assert "load_models_at_startup" in line


@pytest.mark.parametrize("source", ["settings.json", slow("variable"), slow("dotenv")])
def test_a_server_may_start_without_models(tmp_path: Path, source: str) -> None:
    """Like multi-model servers of Seldon and KServe: started empty, loads are requests."""
    env = {"MLSERVER_LOAD_MODELS_AT_STARTUP": "false"} if source == "variable" else {}
    if source == "settings.json":
        write_server_settings(tmp_path, server_name="empty")
    if source == "dotenv":
        (tmp_path / ".env").write_text("MLSERVER_LOAD_MODELS_AT_STARTUP=false\n")
    with Started(tmp_path, str(tmp_path), env=env) as server:
        assert index(server) == {}
        write_model(tmp_path / "echo")
        assert server.post("/v2/repository/models/echo/load").status_code == 200
        assert index(server) == {"echo": "READY"}


def index(server: Server) -> dict[str, str]:
    """Name or `name/version` -> state."""
    items = server.post("/v2/repository/index").json()
    return {
        "/".join(filter(None, (item["name"], item.get("version")))): item["state"] for item in items
    }


def test_flags_override_the_file(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_server_settings(
        tmp_path, http_port=1, host="192.0.2.1", parallel_workers=3, server_name="from-the-file"
    )
    with Started(
        tmp_path, str(tmp_path), "--http-port", "PORT", "--host", "127.0.0.1", "--workers", "0"
    ) as server:
        assert server.get("/v2").json()["name"] == "from-the-file"
        assert server.workers == []


def test_a_variable_that_the_file_overrides_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_server_settings(tmp_path, server_name="file", parallel_workers=1)
    env = {"MLSERVER_SERVER_NAME": "variable", "MLSERVER_PARALLEL_WORKERS": "1"}
    with Started(tmp_path, str(tmp_path), env=env) as server:
        server.wait_for_line("MLSERVER_SERVER_NAME has no effect: ")
        server.wait_for_line("settings.json sets 'server_name' to file")
        assert "MLSERVER_PARALLEL_WORKERS has no effect" not in server.log


def test_the_number_of_http_workers_is_a_flag(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    code, printed = run_mlserver("start", str(tmp_path), "--http-workers", "2", "--workers", "0")

    assert code == 2
    assert "http_workers" in printed
    assert run_mlserver("start", str(tmp_path), "--http-workers", "0")[0] == 2
