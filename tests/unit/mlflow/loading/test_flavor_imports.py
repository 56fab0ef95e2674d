"""Modules imported before MLflow: skops, without the array libraries that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow.hooks import MLflowHooks

SKOPS = "mlserver_mlflow.loading.skops_import"
MLMODEL = "flavors:\n  sklearn:\n    serialization_format: {}\n"
# What `import *` of an array library offers at least.
TORCH = "class Tensor: pass\n__all__ = ['Tensor']\n"
TRUSTED_TYPES = """
import json, sys
{first}
from skops.io import _trusted_types as types
names = {{name: sorted(value) for name, value in vars(types).items() if name.endswith("_NAMES")}}
print(json.dumps({{"names": names, "torch": "torch" in sys.modules,
    "blocked": [name for name, module in sys.modules.items() if module is None]}}))
"""
LOAD_ORDER = """
import asyncio, json, sys
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.settings import ModelSettings
settings = ModelSettings(name="m", implementation="mlserver_mlflow.MLflowRuntime",
    parameters={{"uri": {uri!r}}})
asyncio.run(ModelRunner().load("m#1", settings))
print(json.dumps([name for name in sys.modules if name in ("skops", "mlflow")]))
"""


def run(code: str, **environment: str) -> Any:
    """Return the JSON that code prints last in a new interpreter."""
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment or None,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(completed.stdout.splitlines()[-1])


def list_imports(uri: str | None, folder: Path | None = None) -> list[str]:
    settings = ModelSettings(
        name="m",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters=ModelParameters(uri=uri) if uri else None,
    )
    if folder is not None:
        settings._source = str(folder / "model-settings.json")
    return MLflowHooks().list_imports(settings)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("skops", [SKOPS]), ("'skops'", [SKOPS]), ("cloudpickle", []), ("null", [])],
)
def test_modules_of_a_serialization_format(
    tmp_path: Path, written: str, expected: list[str]
) -> None:
    (tmp_path / "MLmodel").write_text(MLMODEL.format(written))
    assert list_imports(str(tmp_path)) == expected
    assert list_imports(str(tmp_path / "MLmodel")) == expected


@pytest.mark.parametrize("uri", [None, "models:/wine/1", "s3://bucket/model", "./missing"])
def test_no_modules_without_a_local_folder(uri: str | None) -> None:
    assert list_imports(uri) == []


@pytest.mark.slow
def test_a_worker_imports_skops_before_mlflow(models: Any) -> None:
    assert run(LOAD_ORDER.format(uri=str(models["wine"]))) == ["skops", "mlflow"]


@pytest.mark.slow
def test_pytorch_is_not_loaded_and_the_trusted_types_are_equal(tmp_path: Path) -> None:
    """The stand-in for PyTorch shows only whether skops' import reaches it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(TORCH)
    guarded = run(TRUSTED_TYPES.format(first=f"import {SKOPS}"), PYTHONPATH=str(tmp_path))
    plain = run(TRUSTED_TYPES.format(first=""))
    assert guarded["names"] == plain["names"]
    assert len(guarded["names"]["SKLEARN_ESTIMATOR_TYPE_NAMES"]) > 150
    assert not guarded["torch"]
    assert guarded["blocked"] == plain["blocked"]
