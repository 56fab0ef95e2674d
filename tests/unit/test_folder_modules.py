"""Modules in the folders of custom runtimes: which models may look names up, and conflicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver import ModelSettings
from mlserver.folder_modules import FolderModules, ImportedModules
from support.repository import write_model


def read(folder: Path, **parameters: Any) -> FolderModules:
    settings = write_model(folder, parameters=parameters or None) / "model-settings.json"
    modules = FolderModules.from_settings(ModelSettings.parse_file(str(settings)))
    assert modules is not None
    return modules


def test_modules_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m" / "package").mkdir(parents=True)
    (tmp_path / "m" / "package" / "__init__.py").touch()
    modules = read(tmp_path / "m")
    assert modules.names == {"echo_model", "package"}
    assert not modules.looks_up


def test_an_installed_runtime_has_none(tmp_path: Path) -> None:
    (tmp_path / "helper.py").touch()
    settings = tmp_path / "model-settings.json"
    settings.write_text('{"name": "m", "implementation": "mlserver.model.MLModel"}')
    assert FolderModules.from_settings(ModelSettings.parse_file(str(settings))) is None


@pytest.mark.parametrize(
    "name, text, looks_up",
    [
        ("weights.json", "{}", False),
        ("notes.md", "pickle", False),
        ("model.pkl", "", True),
        ("model.bin", "", True),
        ("data/model", "", True),
        ("helper.py", "import importlib\nimportlib.import_module('x')", True),
        ("helper.py", "import joblib", True),
        ("helper.py", "import numpy", False),
        ("__pycache__/x.pyc", "", False),
    ],
)
def test_what_may_look_names_up(tmp_path: Path, name: str, text: str, looks_up: bool) -> None:
    path = tmp_path / "m" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read(tmp_path / "m").looks_up is looks_up


@pytest.mark.parametrize(
    "uri, looks_up", [("./", False), ("model.json", False), ("../x", True), ("s3://b/x", True)]
)
def test_a_model_elsewhere_may_be_pickled(tmp_path: Path, uri: str, looks_up: bool) -> None:
    assert read(tmp_path / "m", uri=uri).looks_up is looks_up


def modules(folder: str, looks_up: bool, fingerprint: str = "1", names: str = "x") -> FolderModules:
    return FolderModules(folder, folder, fingerprint, frozenset(names.split()), looks_up)


@pytest.mark.parametrize(
    "other, reason",
    [
        (modules("b", True), "model 'a' has another module 'x'"),
        (modules("b", False), None),
        (modules("b", True, names="y"), None),
        (modules("a", True), None),
        (modules("a", True, "2"), "its module 'x' was loaded before its files were changed"),
    ],
)
def test_conflicts(other: FolderModules, reason: str | None) -> None:
    imported = ImportedModules()
    imported.add(modules("a", False))
    assert imported.find_conflict(other) == reason


def test_a_model_that_looks_names_up_keeps_others_out() -> None:
    imported = ImportedModules()
    imported.add(modules("a", True))
    assert imported.find_conflict(modules("b", False)) == "model 'a' has another module 'x'"
