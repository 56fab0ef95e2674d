"""`mlserver dockerfile --slim`: mlflow-skinny in place of mlflow where a model allows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlserver.cli.image_spec import ImageSpec
from mlserver.cli.image_text import render_dockerfile
from support.dockerfile import Dockerfile
from support.models import Models


def write_mlflow_model(folder: Path, requirements: str, flavors: str = "sklearn") -> Path:
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(f"flavors: {{python_function: {{}}, {flavors}: {{}}}}\n")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_a_slim_image_of_an_mlflow_model(models: Models) -> None:
    """The packages are those of the model, with mlflow-skinny in place of mlflow."""
    spec = ImageSpec.from_folder(models["wine"], slim=True)
    installed = Dockerfile(models["wine"], render_dockerfile(spec)).installed
    names = [re.split("[=<>]", requirement)[0] for requirement in installed]
    assert names == ["mlserver", "mlserver-mlflow", "mlflow-skinny", "scikit-learn", "skops"]
    assert spec.notes == []


@pytest.mark.parametrize(
    "requirements, flavor, expected",
    [
        ("mlflow==3.17.2", "sklearn", ["mlflow-skinny==3.17.2"]),
        ("MLflow >= 2.21, <4  # a comment\n", "xgboost", ["mlflow-skinny >= 2.21, <4"]),
        ("mlflow\nlightgbm==4.6", "lightgbm", ["mlflow-skinny", "lightgbm==4.6"]),
        ("mlflow-skinny==3.1\nmlflow_export_import", "sklearn", None),
        ("mlflow==2.20.3", "sklearn", "mlflow-skinny suffices from 2.21 on"),
        ("mlflow[gateway]==3.17.2", "sklearn", "extras of mlflow"),
        ("mlflow\n--extra-index-url https://example.org", "sklearn", "the line '--extra"),
        ("mlflow", "langchain", "flavor langchain"),
    ],
)
def test_models_that_allow_a_slim_image(
    tmp_path: Path, requirements: str, flavor: str, expected: list[str] | str | None
) -> None:
    """`expected`: the requirements, None = unchanged, or the reason why all of MLflow is needed."""
    folder = write_mlflow_model(tmp_path / "model", requirements, flavor)
    spec = ImageSpec.from_folder(folder, slim=True)
    if isinstance(expected, str):
        assert spec.requirements_files == ["requirements.txt"]
        assert [expected in note for note in spec.notes] == [True], spec.notes
        return
    assert spec.requirements == (expected or requirements.splitlines())
    assert spec.requirements_files == spec.notes == []


def test_a_slim_image_of_a_conda_file(tmp_path: Path) -> None:
    folder = write_mlflow_model(tmp_path / "model", "")
    (folder / "requirements.txt").unlink()
    (folder / "conda.yaml").write_text("dependencies: [pip: [mlflow==3.1.0, scikit-learn==1.7]]\n")
    spec = ImageSpec.from_folder(folder, slim=True)
    assert spec.requirements == ["mlflow-skinny==3.1.0", "scikit-learn==1.7"]
