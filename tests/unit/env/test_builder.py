"""Requirements of a model's environment, and the errors before anything is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver.env.builder import find_environment_spec
from mlserver.env.environment import find_environment
from mlserver.errors import MLServerError
from mlserver.security import code_policy
from mlserver.security.code_policy import CodeNotAllowed, compute_digest
from mlserver.settings import ModelParameters, ModelSettings, Settings

# Data only: this loader reads nothing that is code.
MLMODEL = "flavors:\n  python_function:\n    loader_module: mlflow.xgboost\n    data: model.json\n"


def settings_of(folder: Path, manager: str = "uv") -> ModelSettings:
    parameters = ModelParameters(uri=str(folder), extra={"env_manager": manager})
    return ModelSettings(
        name="wine", implementation="mlserver_mlflow.MLflowRuntime", parameters=parameters
    )


def model(folder: Path, requirements: str = "joblib\n") -> Path:
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.json").write_text("{}")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_local_builds_nothing(tmp_path: Path) -> None:
    assert find_environment_spec(settings_of(tmp_path, "local")) is None
    assert (
        find_environment_spec(
            ModelSettings(name="wine", implementation="mlserver_mlflow.MLflowRuntime")
        )
        is None
    )


def test_the_model_s_requirements_and_the_server_s_own(tmp_path: Path) -> None:
    spec = find_environment_spec(settings_of(model(tmp_path / "wine")))
    assert spec is not None
    assert spec.lines[0] == "-r requirements.txt"
    assert any(line.startswith("msgspec") for line in spec.lines)
    assert not any(line.startswith("mlserver") for line in spec.lines)


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    keys = set()
    for folder, text in (
        ("one", "joblib==1.4.0"),
        ("same", "joblib==1.4.0"),
        ("other", "joblib==1.5.0"),
    ):
        spec = find_environment_spec(settings_of(model(tmp_path / folder, text)))
        assert spec is not None
        keys.add(spec.key)
    assert len(keys) == 2


def test_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(
        MLServerError, match="expected one of local, uv, virtualenv, received 'conda'"
    ):
        find_environment_spec(settings_of(tmp_path, "conda"))
    with pytest.raises(MLServerError, match="no file 'MLmodel'"):
        find_environment_spec(settings_of(tmp_path))
    (model(tmp_path / "wine") / "requirements.txt").unlink()
    with pytest.raises(MLServerError, match=r"has no python_env\.yaml"):
        find_environment_spec(settings_of(tmp_path / "wine"))


@pytest.fixture
def _rules() -> Iterator[None]:
    yield
    code_policy.install_policy(Settings.model_construct())


@pytest.mark.usefixtures("_rules")
def test_in_production_nothing_is_installed_for_a_model_that_is_not_trusted(tmp_path: Path) -> None:
    folder = model(tmp_path / "wine")
    code_policy.install_policy(Settings(production=True, model_repository_root=str(tmp_path)))
    with pytest.raises(
        CodeNotAllowed, match="requirements that 'virtualenv' installs.*trusted_models"
    ):
        find_environment(settings_of(folder, "virtualenv"), str(tmp_path / "environments"))
    assert not (tmp_path / "environments").exists()
    digest = compute_digest(str(folder))
    code_policy.install_policy(
        Settings(production=True, model_repository_root=str(tmp_path), trusted_models=[digest])
    )
    assert find_environment_spec(settings_of(folder)) is not None
    (folder / "requirements.txt").write_text("something-else\n")
    with pytest.raises(CodeNotAllowed):
        find_environment_spec(settings_of(folder))
