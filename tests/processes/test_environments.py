"""Environments built from models' requirements, by uv and by pip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from support.mlflow_registry import MLflowRegistry
from support.repository import tensor
from support.server import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]

BUILD_LIMIT = 300.0
# A model from code that trains and predicts with the installed scikit-learn.
FITS = """
import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Fits(PythonModel):
    def load_context(self, context):
        import sklearn
        from sklearn.linear_model import LinearRegression

        self.version = sklearn.__version__
        self.model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])

    def predict(self, context, model_input, params=None):
        predictions = self.model.predict(np.asarray(model_input))
        return {"version": [self.version] * len(model_input), "y": predictions}


set_model(Fits())
"""


@pytest.fixture(scope="module")
def _index() -> None:
    """Skip without uv or a package index."""
    pytest.importorskip("uv", reason="uv is not installed")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "-"]
    completed = subprocess.run(
        command, input="threadpoolctl", text=True, capture_output=True, timeout=60, check=False
    )
    if completed.returncode:
        pytest.skip(f"the package index cannot be reached: {completed.stderr.strip()[-200:]}")


def code_of(folder: Path, text: str) -> str:
    code = folder / "code.py"
    code.write_text(text)
    return str(code)


def describe(place: Path, uri: str, manager: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    parameters = {"uri": uri, "extra": {"env_manager": manager}}
    settings = {
        "name": place.name,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": parameters,
    }
    (place / "model-settings.json").write_text(json.dumps(settings))


def write(folder: Path, name: str, requirement: str, manager: str, text: str = FITS) -> None:
    place = folder / name
    describe(place, "./model", manager)
    code = code_of(folder.parent, text)
    signature = mlflow.models.infer_signature(np.array([[1.0]]))
    mlflow.pyfunc.save_model(
        place / "model", python_model=code, signature=signature, pip_requirements=[requirement]
    )
    # Only the model's requirement: MLflow adds its own.
    (place / "model" / "requirements.txt").write_text(f"{requirement}\n")


def answer(server: Server, name: str) -> tuple[str, float]:
    response = server.infer(name, [tensor("x", [2.0], datatype="FP64", shape=[1, 1])])
    assert response.status_code == 200, response.text
    values = {output["name"]: read_first(output) for output in response.json()["outputs"]}
    return values["version"], round(values["y"], 6)


def read_first(output: dict[str, Any]) -> Any:
    """Return the first value; declared arrays (a signature from an example) are JSON text."""
    value = output["data"][0]
    is_json = output.get("parameters", {}).get("content_type") == "pd_json"
    return json.loads(value) if is_json else value


@pytest.mark.usefixtures("_index")
def test_two_models_with_two_versions_of_one_package(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write(folder, "old", "scikit-learn==1.7.2", "uv")
    write(folder, "new", "scikit-learn==1.8.0", "uv")
    write(folder, "own", "scikit-learn", "local")
    write(folder, "never", "scikit-learn==99.0", "uv")
    import sklearn

    env = {"MLSERVER_ENVIRONMENTS_DIR": str(tmp_path / "environments")}
    with Server(folder, env=env, ready=None) as server:
        for name in ("old", "new", "own"):
            server.wait_until(f"/v2/models/{name}/ready", limit=BUILD_LIMIT)
        assert answer(server, "old") == ("1.7.2", 5.0)
        assert answer(server, "new") == ("1.8.0", 5.0)
        assert answer(server, "own") == (sklearn.__version__, 5.0)
        reasons = {
            entry["name"]: entry["reason"] for entry in server.post("/v2/repository/index").json()
        }
        assert reasons["never"].startswith("The environment of model never cannot be built")
        assert "scikit-learn==99.0" in reasons["never"]
        assert str(server.log).count("Built the environment") == 2
    with Server(folder / "old", env=env, ready="/v2/models/old/ready") as server:
        assert answer(server, "old") == ("1.7.2", 5.0)
        assert "Building the environment" not in server.log


# Returns the version of MLflow, for models that pin one.
PINNED = """
import mlflow
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Pinned(PythonModel):
    def predict(self, context, model_input, params=None):
        return {"version": [mlflow.__version__] * len(model_input), "y": [5.0] * len(model_input)}


set_model(Pinned())
"""
# The lowest versions of a worker's requirements (`builder.WORKER_REQUIREMENTS`), and an MLflow that
# allows them.
LOWEST = [
    "pydantic==2.7.0",
    "pydantic-settings==2.3.0",
    "orjson==3.9.0",
    "msgspec==0.18.5",
    "numpy==1.23.5",
    "pandas==1.5.3",
    "mlflow-skinny==2.22.0",
]
SCORING = {"dataframe_split": {"columns": ["x"], "data": [[2.0]]}}


@pytest.mark.usefixtures("_index")
def test_models_that_pin_an_older_mlflow(tmp_path: Path) -> None:
    """MLflow before 2.21 has no skinny package for this.

    3.12 needs starlette below 1, 3.1 protobuf below 7.
    """
    pins = {
        "old": "mlflow==2.16.2",
        "two": "mlflow-skinny==2.22.0",
        "three": "mlflow-skinny==3.1.0",
    }
    pins |= {"twelve": "mlflow-skinny==3.12.0", "lowest": "\n".join(LOWEST)}
    folder = tmp_path / "repository"
    for name, pin in pins.items():
        write(folder, name, pin, "uv", PINNED)
        (folder / name / "model" / "requirements.txt").write_text(f"{pin}\n")
    env = {"MLSERVER_ENVIRONMENTS_DIR": str(tmp_path / "environments")}
    with Server(folder, env=env, ready=None) as server:
        for name, pin in pins.items():
            server.wait_until(f"/v2/models/{name}/ready", limit=BUILD_LIMIT)
            assert answer(server, name) == (pin.rpartition("==")[2], 5.0)
            scored = server.post(f"/v2/models/{name}/invocations", SCORING)
            assert scored.status_code == 200, scored.text
    # The environments have a worker's requirements and none of the server's.
    installed = [
        path.name.partition("-")[0].lower()
        for path in (tmp_path / "environments").rglob("*.dist-info")
    ]
    assert not {"grpcio", "httptools", "msgpack", "prometheus_client"} & set(installed)


# Returns where joblib was imported from. Its only requirement, because pip is slow.
LOCATES = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Locates(PythonModel):
    def predict(self, context, model_input, params=None):
        import sys

        import joblib

        is_own = float(sys.prefix in joblib.__file__)
        return {"version": [joblib.__version__] * len(model_input), "y": [is_own]}


set_model(Locates())
"""


@pytest.mark.usefixtures("_index")
def test_pip_builds_an_environment(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write(folder, "locates", "joblib==1.4.2", "virtualenv", LOCATES)
    with Server(
        folder, env={"MLSERVER_ENVIRONMENTS_DIR": str(tmp_path / "environments")}, ready=None
    ) as server:
        server.wait_until("/v2/models/locates/ready", limit=BUILD_LIMIT)
        assert answer(server, "locates") == ("1.4.2", 1.0)


@pytest.mark.usefixtures("_index")
def test_a_registry_model_is_downloaded_before_its_environment_is_built(tmp_path: Path) -> None:
    registry = MLflowRegistry(tmp_path)
    registry.add("locates", 0.0, code_of(tmp_path, LOCATES))
    registry.point("locates", "champion", 1)
    (requirements,) = (tmp_path / "artifacts").rglob("requirements.txt")
    requirements.write_text("joblib==1.4.2\n")
    describe(tmp_path / "repository" / "locates", "models:/locates@champion", "uv")
    env = {
        **registry.env,
        "MLSERVER_ENVIRONMENTS_DIR": str(tmp_path / "environments"),
        "MLSERVER_MLFLOW_CACHE": str(tmp_path / "cache"),
    }
    registry.add("locates", 0.0, code_of(tmp_path, LOCATES))
    with Server(tmp_path / "repository", env=env, ready=None) as server:
        server.wait_for_line("Building the environment", limit=BUILD_LIMIT)
        registry.point("locates", "champion", 2)  # too late: the environment is that of version 1
        server.wait_until("/v2/models/locates/ready", limit=BUILD_LIMIT)
        assert answer(server, "locates") == ("1.4.2", 1.0)
        parameters = server.get("/v2/models/locates").json()["parameters"]
        assert parameters["source"] == "models:/locates/1"
