"""Sources of models and settings: folders, versions, files, variables; and broken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.engines import RAY_ENGINE
from support.models import Models
from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Serve, Server, run_mlserver
from support.slow import slow

ANY_PORTS = {f"MLSERVER_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}

VERSIONED = """
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse


class Versioned(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[])
"""


def index(server: Server) -> dict[tuple[str, str | None], dict[str, Any]]:
    items = server.post("/v2/repository/index", {}).json()
    return {(item["name"], item.get("version")): item for item in items}


def states(server: Server) -> dict[tuple[str, str | None], str]:
    return {key: item["state"] for key, item in index(server).items()}


def model_answering(server: Server, path: str) -> tuple[str, str | None]:
    response = server.post(f"/v2/models/{path}/infer", {"inputs": [tensor("x", [1])]})
    assert response.status_code == 200, response.text
    return response.json()["model_name"], response.json().get("model_version")


# -- several models, several versions --


@pytest.mark.parametrize("workers", [slow(0), 2, RAY_ENGINE])
def test_several_models(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_model(tmp_path / "first" / "echo")
    write_model(tmp_path / "second" / "deep" / "down", "Sum", name="sum")
    write_model(tmp_path / ".hidden" / "secret")
    server = serve(tmp_path, workers=workers)
    assert states(server) == {("echo", None): "READY", ("sum", None): "READY"}
    inputs = [tensor("x", [1, 2, 3.5]), tensor("y", [10], "INT64")]
    assert [output["data"] for output in server.infer("echo", inputs).json()["outputs"]] == [
        [1, 2, 3.5],
        [10],
    ]
    assert server.infer("sum", inputs).json()["outputs"][0]["data"] == [16.5]


def test_several_versions(serve: Serve, tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        folder = tmp_path / "many" / version
        write_model(
            folder, "Versioned", source=VERSIONED, name="many", parameters={"version": version}
        )
    server = serve(tmp_path, workers=0)
    assert model_answering(server, "many") == ("many", "10")
    for version in ("2", "9", "10"):
        assert model_answering(server, f"many/versions/{version}") == ("many", version)
    assert set(index(server)) == {("many", "2"), ("many", "9"), ("many", "10")}


def test_two_folders_with_modules_of_one_name(serve: Serve, tmp_path: Path) -> None:
    """Each model runs its own code, though the files have the same name."""
    source = "import helper\n" + VERSIONED.replace(
        "outputs=[]", "outputs=[], parameters={'says': helper.SAYS}"
    )
    for name in ("left", "right"):
        write_model(tmp_path / name, "Versioned", source=source)
        (tmp_path / name / "helper.py").write_text(f"SAYS = '{name}'\n")
    server = serve(tmp_path)
    for name in ("left", "right"):
        assert server.infer(name, [tensor("x", [1])]).json()["parameters"]["says"] == name


def test_load_and_unload(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "sum", "Sum")
    server = serve(tmp_path, workers=0, env={"MLSERVER_LOAD_MODELS_AT_STARTUP": "false"})
    assert set(states(server).values()) == {"UNAVAILABLE"}
    assert server.get("/v2/models/echo/ready").status_code == 404
    assert server.post("/v2/repository/models/echo/load").status_code == 200
    assert server.get("/v2/models/echo/ready").status_code == 200
    assert states(server) == {("echo", None): "READY", ("sum", None): "UNAVAILABLE"}
    assert server.post("/v2/repository/models/echo/unload").status_code == 200
    assert server.post("/v2/models/echo/infer", {"inputs": []}).status_code == 404


def test_a_load_from_outside_the_repository_is_rejected(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=0)
    load = "/v2/repository/models/echo/load"
    for name in ("config", "file:1/model.bin"):
        refused = server.post(load, {"parameters": {name: "{}"}})
        assert refused.status_code == 400
        assert f"parameter '{name}'" in refused.json()["error"]
    assert server.post(load, {"parameters": {"own": 1}}).status_code == 200


def test_a_model_that_appears_later(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    server = serve(tmp_path, workers=0)
    write_model(tmp_path / "sum", "Sum")
    assert server.post("/v2/repository/models/sum/load").status_code == 200
    assert server.infer("sum", [tensor("x", [1, 2])]).json()["outputs"][0]["data"] == [3]


# -- files, variables and .env --


def test_settings_json_overrides_variables(serve: Serve, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    write_model(tmp_path / "echo")
    write_server_settings(tmp_path, server_name="from-file", http_port=port, parallel_workers=0)
    server = serve(tmp_path, env={"MLSERVER_SERVER_NAME": "from-environment"}, ready=None)
    server.wait_until(f"http://127.0.0.1:{port}/v2/health/ready")
    assert server.get(f"http://127.0.0.1:{port}/v2").json()["name"] == "from-file"
    assert server.workers == []


def test_variables_override_dotenv(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "echo")
    (tmp_path / ".env").write_text(
        'MLSERVER_SERVER_NAME=dotenv\nMLSERVER_EXTENSIONS=["mine"]\nUNRELATED=1\n'
    )
    server = serve(
        tmp_path / "models", workers=0, cwd=tmp_path, env={"MLSERVER_SERVER_NAME": "variable"}
    )
    body = server.get("/v2").json()
    assert body["name"] == "variable"
    assert "mine" in body["extensions"]


def test_a_container_without_any_file(serve: Serve, models: Models, tmp_path: Path) -> None:
    """The variables of KServe and of MLflow's launchers alone."""
    variables = {
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_mlflow.MLflowRuntime",
        "MLSERVER_MODEL_URI": str(models["array"]),
        "MLSERVER_MODEL_NAME": "doubles",
    }
    server = serve(tmp_path, argument=".", env=variables)
    inputs = [tensor("x", [1.0, 2.0, 3.0], "FP64", [1, 3])]
    assert server.infer("doubles", inputs).json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]


@pytest.mark.slow
def test_mlflows_launcher(serve: Serve, models: Models, tmp_path: Path) -> None:
    """`mlserver start MODEL_FOLDER`: a name in the environment overrides the folder's."""
    variables = {
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_mlflow.MLflowRuntime",
        "MLSERVER_MODEL_URI": str(models["array"]),
        "MLSERVER_MODEL_NAME": "mlflow-model",
        "MLSERVER_MODEL_VERSION": "3",
    }
    server = serve(models["array"], cwd=tmp_path, env=variables)
    assert states(server) == {("mlflow-model", "3"): "READY"}


@pytest.mark.slow
def test_a_folder_of_mlflow_models(serve: Serve, models: Models, tmp_path: Path) -> None:
    """A relative URI is resolved from its settings file.

    Without one the folder itself is the model.
    """
    models.copy("array", tmp_path / "beside" / "model")
    write_settings(
        tmp_path / "beside",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters={"uri": "./model"},
    )
    models.copy("dict", tmp_path / "inside")
    write_settings(tmp_path / "inside", implementation="mlserver_mlflow.MLflowRuntime")
    assert states(serve(tmp_path)) == {("beside", None): "READY", ("inside", None): "READY"}


# -- models that fail to load --


@pytest.mark.parametrize("workers", [0, 1, RAY_ENGINE])
def test_a_broken_model_beside_a_good_one(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "broken", "Broken")
    server = serve(tmp_path, workers=workers, ready="/v2/models/echo/ready", tracebacks=True)
    server.wait_for_line("the weights are missing")
    assert server.get("/v2/health/live").status_code == 200
    assert server.get("/v2/health/ready").status_code != 200
    assert server.infer("echo", [tensor("x", [1])]).status_code == 200
    item = index(server)["broken", None]
    assert item["state"] != "READY"
    assert "the weights are missing" in item["reason"]
    assert server.infer("broken", [tensor("x", [1])]).status_code in (400, 404, 503)


def test_a_wrong_settings_file_beside_a_good_model(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_settings(tmp_path / "wrong", name="wrong")
    server = serve(tmp_path, ready="/v2/models/echo/ready")
    server.wait_for_line("implementation")
    assert server.get("/v2/health/ready").status_code != 200
    assert "implementation" in index(server)["wrong", None]["reason"]


def test_a_broken_model_can_be_repaired(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "late", "Broken")
    server = serve(tmp_path, ready="/v2/models/echo/ready", tracebacks=True)
    server.wait_for_line("the weights are missing")
    write_model(tmp_path / "late", "Sum")
    assert server.post("/v2/repository/models/late/load").status_code == 200
    server.wait_until("/v2/health/ready")
    assert states(server)["late", None] == "READY"


@pytest.mark.parametrize("workers", [slow(0), 2])
def test_a_failed_load_is_logged_once(serve: Serve, tmp_path: Path, workers: int) -> None:
    """One line with the reason for any number of workers; the traceback is logged at DEBUG."""
    write_model(tmp_path / "echo")
    write_model(tmp_path / "broken", "Broken")
    server = serve(tmp_path, workers=workers, ready="/v2/models/echo/ready")
    server.wait_for_line("Not ready: 1 of the models failed to load: 'broken'")
    lines = [line for line in str(server.log).splitlines() if "the weights are missing" in line]
    assert len(lines) == 1
    assert "Model 'broken' could not be loaded: " in lines[0]
    assert server.post("/v2/repository/models/broken/load").status_code != 200
    # The log is a pipe: its line may arrive after the response.
    server.wait(
        lambda: str(server.log).count("the weights are missing") >= 2, "the second load is logged"
    )
    assert str(server.log).count("the weights are missing") == 2


def test_the_traceback_of_a_failed_load_at_debug(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "broken", "Broken")
    env = {"MLSERVER_LOG_LEVEL": "DEBUG"}
    server = serve(tmp_path, workers=1, ready="/v2/models/echo/ready", tracebacks=True, env=env)
    server.wait_for_line("Not ready: 1 of the models")
    assert str(server.log).count("Traceback") == 1
    server.wait_for_line("broken_model.py")


@pytest.mark.parametrize(
    "workers, names", [slow("0", ["broken"]), slow("1", ["broken"]), ("2", ["broken", "other"])]
)
def test_a_fatal_error_is_logged_once(tmp_path: Path, workers: str, names: list[str]) -> None:
    for name in names:
        write_model(tmp_path / name, "Broken")
    code, output = run_mlserver(
        "start", ".", cwd=tmp_path, env=ANY_PORTS | {"MLSERVER_PARALLEL_WORKERS": workers}
    )
    assert code == 1
    assert output.count("the weights are missing") == len(names)
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert all(f"'{name}'" in last for name in names)
    assert "the weights are missing" in last or len(names) > 1


FALSE = """
from mlserver import MLModel


class Never(MLModel):
    async def load(self) -> bool:
        return False
"""


def test_a_load_that_returns_false(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "never", "Never", source=FALSE)
    server = serve(tmp_path, ready="/v2/models/echo/ready")
    server.wait_for_line("Model 'never' could not be loaded: load() of the model returned False")
    assert "Loaded model 'never'" not in server.log


# -- modules that are missing --

MISSING = """
from mlserver import MLModel


class Needy(MLModel):
    async def load(self) -> bool:
        import {module}
        return True
"""


@pytest.mark.parametrize(
    "module, requirements, advice",
    [
        (
            "no_such_thing.deep",
            "# first\nNo.Such-Thing[x]>=1\n",
            "pip install -r {folder}/requirements.txt",
        ),
        slow(
            "no_such_thing",
            "numpy\n",
            "pip install -r {folder}/requirements.txt; if it is part of the model's own code",
        ),
        slow(
            "no_such_thing",
            None,
            "install the package that contains it; if it is part of the model's own code",
        ),
    ],
)
def test_a_missing_module_says_what_to_install(
    tmp_path: Path, module: str, requirements: str | None, advice: str
) -> None:
    folder = write_model(tmp_path / "needy", "Needy", source=MISSING.format(module=module))
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    code, output = run_mlserver("start", str(tmp_path), env=ANY_PORTS)
    last = output.splitlines()[-1]
    assert code == 1
    assert "No module named 'no_such_thing" in last
    assert advice.format(folder=folder) in last


@pytest.mark.parametrize(
    "module, is_listed", [("sklearn", True), slow("sklearn", False), slow("mlserver_mlflow", False)]
)
def test_a_missing_module_of_an_mlflow_model(
    models: Models, tmp_path: Path, module: str, is_listed: bool
) -> None:
    hidden = f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / f"{module}.py").write_text(hidden)
    folder = models.copy("wine", tmp_path / "models" / "wine")
    (folder / "requirements.txt").write_text("scikit-learn==1.5\n" if is_listed else "pandas\n")
    env = ANY_PORTS | {"PYTHONPATH": str(tmp_path / "hidden")}
    code, output = run_mlserver("start", str(tmp_path / "models"), env=env, cwd=tmp_path)
    last = output.splitlines()[-1]
    assert code == 1
    assert "Traceback" not in output
    if module == "mlserver_mlflow":
        assert "pip install mlserver-mlflow" in last
    elif is_listed:
        assert f"'scikit-learn' is not installed: pip install -r {folder}/requirements.txt" in last
        assert '"env_manager": "uv"' in last
    else:
        assert "'scikit-learn' is not installed: pip install 'mlserver-mlflow[full]'" in last
