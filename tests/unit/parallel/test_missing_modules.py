"""Advice for a model whose load fails because a module is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserver.parallel.worker.missing_modules import advise_missing_module
from mlserver.settings import ModelSettings


def advise(module: str, implementation: str, folder: Path) -> str | None:
    settings = ModelSettings(name="m", implementation=implementation)
    settings._source = str(folder / "model-settings.json")
    return advise_missing_module(ModuleNotFoundError("missing", name=module), settings)


def test_a_missing_runtime_names_its_distribution(tmp_path: Path) -> None:
    advice = advise("mlserver_mine", "mlserver_mine.Runtime", tmp_path)
    assert advice == "The package 'mlserver-mine' is not installed: pip install mlserver-mine"


@pytest.mark.parametrize("module", ["mlserver_other", "helpers.sub"])
def test_a_module_of_unknown_origin_is_not_suggested(module: str, tmp_path: Path) -> None:
    """A module of the model's own code may have the name of an unrelated public package."""
    advice = advise(module, "mlserver_mine.Runtime", tmp_path)
    top = module.partition(".")[0]
    assert advice is not None
    assert advice.startswith(f"The module '{top}' is not installed: install the package that")
    assert "pip install" not in advice


def test_the_requirements_of_the_model_are_suggested(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("scikit_learn==1.5 ; python_version > '3'\n")
    advice = advise("sklearn.linear_model", "mine.Runtime", tmp_path)
    assert advice == f"The package 'scikit-learn' is not installed: pip install -r {path}"


def test_other_errors_have_no_advice() -> None:
    settings = ModelSettings(name="m", implementation="mine.Runtime")
    assert advise_missing_module(ValueError("no"), settings) is None
    error = RuntimeError("outer")
    error.__cause__ = ModuleNotFoundError("missing", name="nothing")
    advice = advise_missing_module(error, settings)
    assert advice is not None
    assert "'nothing'" in advice
