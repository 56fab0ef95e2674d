"""What a model's files say of the environment that it needs, wherever the model comes from."""

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
from mlserver_mlflow.loading.environment_spec import requirements_of
from support.mlflow_registry import MLflowRegistry

pytestmark = pytest.mark.filterwarnings("ignore")

PYTHON_ENV = "python: 3.12.4\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
CONDA = "dependencies:\n- python=3.11.7\n- pip\n- pip: [scikit-learn==1.7.2, joblib]\nname: mlflow-env\n"


def asked(settings: ModelSettings, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What the process answers."""
    done = subprocess.run(
        [sys.executable, "-m", "mlserver_mlflow.loading.environment_spec"],
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
    assert requirements_of("wine", str(tmp_path)) == (python, lines)


def test_files_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(MLServerError, match=r"has no python_env\.yaml"):
        requirements_of("wine", str(tmp_path))
    (tmp_path / "conda.yaml").write_text("dependencies:\n- pip:\n")
    with pytest.raises(MLServerError, match=r"has no python_env\.yaml"):
        requirements_of("wine", str(tmp_path))
    (tmp_path / "conda.yaml").write_text("a: [")
    with pytest.raises(MLServerError, match=r"conda\.yaml is no YAML"):
        requirements_of("wine", str(tmp_path))


@pytest.mark.slow
def test_an_address_is_fetched_into_the_cache(tmp_path: Path) -> None:
    registry = MLflowRegistry(tmp_path)
    registry.add("wine", 2.0)
    registry.point("wine", "champion", 1)
    env = {**registry.env, "MLSERVER_MLFLOW_CACHE": str(tmp_path / "cache")}
    answer = asked(settings_of("models:/wine@champion"), env)
    assert Path(answer["folder"]).is_relative_to(tmp_path / "cache")
    assert (answer["source"], answer["lines"]) == ("models:/wine/1", ["-r requirements.txt"])
    assert answer["code"] == ["loader mlflow.sklearn"]
    refused = asked(settings_of("models:/beer@champion"), env)
    assert refused["status"] == 422
    assert "beer" in refused["error"]
