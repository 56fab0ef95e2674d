"""What a model's environment is built from, and the ways in which that fails before anything is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserver.errors import MLServerError
from mlserver.execution.building import recipe_of
from mlserver.settings import ModelParameters, ModelSettings

PYTHON_ENV = "python: 3.12.4\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
CONDA = "dependencies:\n- python=3.11.7\n- pip\n- pip: [scikit-learn==1.7.2, joblib]\nname: mlflow-env\n"


def settings_of(uri: str, manager: str = "uv") -> ModelSettings:
    parameters = ModelParameters(uri=uri, extra={"env_manager": manager})
    return ModelSettings(name="wine", implementation="mlserver_mlflow.MLflowRuntime", parameters=parameters)


def test_local_builds_nothing(tmp_path: Path) -> None:
    assert recipe_of(settings_of(str(tmp_path), "local")) is None
    assert recipe_of(ModelSettings(name="wine", implementation="mlserver_mlflow.MLflowRuntime")) is None


@pytest.mark.parametrize(
    "files, python, first",
    [
        (
            {"python_env.yaml": PYTHON_ENV, "requirements.txt": "joblib\n", "conda.yaml": CONDA},
            "3.12",
            "-r requirements.txt",
        ),
        ({"requirements.txt": "joblib\n", "conda.yaml": CONDA}, "3.11", "-r requirements.txt"),
        ({"conda.yaml": CONDA}, "3.11", "scikit-learn==1.7.2"),
    ],
)
def test_the_first_file_that_has_requirements(files: dict[str, str], python: str, first: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    recipe = recipe_of(settings_of(str(tmp_path)))
    assert recipe is not None
    assert recipe.python == python
    assert recipe.lines[0] == first
    assert any(line.startswith("msgspec") for line in recipe.lines)
    assert not any(line.startswith("mlserver") for line in recipe.lines)


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    keys = set()
    for folder, text in (("one", "joblib==1.4.0"), ("same", "joblib==1.4.0"), ("other", "joblib==1.5.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "requirements.txt").write_text(text)
        recipe = recipe_of(settings_of(str(tmp_path / folder)))
        assert recipe is not None
        keys.add(recipe.key)
    assert len(keys) == 2


def test_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(MLServerError, match="must be one of local, uv, virtualenv, not 'conda'"):
        recipe_of(settings_of(str(tmp_path), "conda"))
    with pytest.raises(MLServerError, match="has no python_env.yaml"):
        recipe_of(settings_of(str(tmp_path)))
    with pytest.raises(MLServerError, match="needs the model's folder as 'uri'"):
        recipe_of(settings_of("models:/wine/1"))
    (tmp_path / "conda.yaml").write_text("a: [")
    with pytest.raises(MLServerError, match=r"conda\.yaml is no YAML"):
        recipe_of(settings_of(str(tmp_path)))
