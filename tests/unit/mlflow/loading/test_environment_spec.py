"""The environment that a model needs, read from its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow.loading.environment_spec import read_requirements
from support.mlflow_registry import MLflowRegistry

pytestmark = pytest.mark.filterwarnings("ignore")

PYTHON_ENV = "python: 3.12.4\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
CONDA = (
    "dependencies:\n- python=3.11.7\n- pip\n- pip: [scikit-learn==1.7.2, joblib]\n"
    "name: mlflow-env\n"
)


def read_in_subprocess(
    settings: ModelSettings, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the output of the subprocess that the server starts."""
    done = subprocess.run(
        [sys.executable, "-m", "mlserver.env.read_files"],
        input=settings.to_frame(),
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=100,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def settings_of(uri: str) -> ModelSettings:
    return ModelSettings(
        name="wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters=ModelParameters(uri=uri),
    )


@pytest.mark.parametrize(
    "files, python, lines",
    [
        (
            {"python_env.yaml": PYTHON_ENV, "requirements.txt": "joblib\n", "conda.yaml": CONDA},
            "3.12",
            ["-r requirements.txt"],
        ),
        ({"requirements.txt": "joblib\n", "conda.yaml": CONDA}, "3.11", ["-r requirements.txt"]),
        ({"conda.yaml": CONDA}, "3.11", ["scikit-learn==1.7.2", "joblib"]),
        ({"requirements.txt": "joblib\n"}, None, ["-r requirements.txt"]),
    ],
)
def test_the_first_file_that_has_requirements(
    files: dict[str, str], python: str | None, lines: list[str], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert read_requirements("wine", str(tmp_path)) == (python, lines)


def test_files_without_requirements_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MLServerError, match=r"has no python_env\.yaml"):
        read_requirements("wine", str(tmp_path))
    (tmp_path / "conda.yaml").write_text("dependencies:\n- pip:\n")
    with pytest.raises(MLServerError, match=r"has no python_env\.yaml"):
        read_requirements("wine", str(tmp_path))
    (tmp_path / "conda.yaml").write_text("a: [")
    with pytest.raises(MLServerError, match=r"conda\.yaml is not valid YAML"):
        read_requirements("wine", str(tmp_path))


@pytest.mark.slow
def test_the_model_of_an_address_is_downloaded_into_the_cache(tmp_path: Path) -> None:
    registry = MLflowRegistry(tmp_path)
    registry.add("wine", 2.0)
    registry.point("wine", "champion", 1)
    env = {**registry.env, "MLSERVER_MLFLOW_CACHE": str(tmp_path / "cache")}
    answer = read_in_subprocess(settings_of("models:/wine@champion"), env)
    assert Path(answer["folder"]).is_relative_to(tmp_path / "cache")
    assert (answer["source"], answer["lines"]) == ("models:/wine/1", ["-r requirements.txt"])
    assert answer["code"] == ["loader mlflow.sklearn"]
    refused = read_in_subprocess(settings_of("models:/beer@champion"), env)
    assert refused["status"] == 422
    assert "beer" in refused["error"]
