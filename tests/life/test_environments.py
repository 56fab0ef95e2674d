"""Models whose environments are built from their own requirements: two scikit-learns in one server, and one that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from support.repository import tensor
from support.server import Server

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

BUILD_LIMIT = 300.0
# A model from code: it fits and predicts with the scikit-learn that it finds.
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
        return {"version": [self.version] * len(model_input), "y": self.model.predict(np.asarray(model_input))}


set_model(Fits())
"""


@pytest.fixture(scope="module")
def _index() -> None:
    """Skips where packages cannot be had."""
    pytest.importorskip("uv", reason="uv is not installed")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "-"]
    asked = subprocess.run(command, input="threadpoolctl", text=True, capture_output=True, timeout=60, check=False)
    if asked.returncode:
        pytest.skip(f"the package index cannot be reached: {asked.stderr.strip()[-200:]}")


def write(folder: Path, name: str, requirement: str, manager: str) -> None:
    place = folder / name
    place.mkdir(parents=True)
    code = folder.parent / "fits.py"
    code.write_text(FITS)
    signature = mlflow.models.infer_signature(np.array([[1.0]]))
    mlflow.pyfunc.save_model(
        place / "model", python_model=str(code), signature=signature, pip_requirements=[requirement]
    )
    # Only what the model needs: MLflow has added all of itself.
    (place / "model" / "requirements.txt").write_text(f"{requirement}\n")
    parameters = {"uri": "./model", "extra": {"env_manager": manager}}
    settings = {"name": name, "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": parameters}
    (place / "model-settings.json").write_text(json.dumps(settings))


def answer(server: Server, name: str) -> tuple[str, float]:
    response = server.infer(name, [tensor("x", [2.0], datatype="FP64", shape=[1, 1])])
    assert response.status_code == 200, response.text
    outputs = {output["name"]: output["data"][0] for output in response.json()["outputs"]}
    return outputs["version"], round(outputs["y"], 6)


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
        reasons = {entry["name"]: entry["reason"] for entry in server.post("/v2/repository/index").json()}
        assert reasons["never"].startswith("The environment of model never cannot be built")
        assert "scikit-learn==99.0" in reasons["never"]
        assert str(server.log).count("Built the environment") == 2
    with Server(folder / "old", env=env, ready="/v2/models/old/ready") as server:
        assert answer(server, "old") == ("1.7.2", 5.0)
        assert "Building the environment" not in server.log
