"""Parts of an MLflow model that are code, for servers that load trusted code only.

A model counts as data if its loader is known to read only data, from files of formats that cannot
hold code. Nothing of the model is executed here.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from mlserver.errors import MLServerError
from mlserver.security.code_policy import CodeNotAllowed, current_policy

MLMODEL = "MLmodel"
# Loader -> suffixes of the file formats that it reads without executing code of the model.
DATA_ONLY_LOADERS = {
    "mlflow.onnx": (".onnx",),
    "mlflow.xgboost": (".json", ".ubj", ".xgb"),
    "mlflow.lightgbm": (".lgb", ".txt"),
    "mlflow.catboost": (".cb",),
}
_CODE_FIELDS = ("code", "model_code_path", "python_model")


def check_code(name: str, folder: str) -> str:
    """Return the folder if the code policy allows to load the model in it.

    Raises:
        CodeNotAllowed: the model has code and is not trusted.
    """
    if current_policy().checks_files:
        current_policy().check_files(name, folder, find_code(name, folder))
    return folder


def find_code(name: str, folder: str) -> list[str]:
    """Return descriptions of the parts of a model that are code.

    Raises:
        MLServerError: the folder has no `MLmodel` file with a pyfunc flavor.
    """
    yaml: Any = importlib.import_module("yaml")
    try:
        with open(os.path.join(folder, MLMODEL), encoding="utf-8") as file:
            flavor = yaml.safe_load(file)["flavors"]["python_function"]
        loader = str(flavor["loader_module"])
        data = flavor.get("model_path") or flavor.get("data") or "."
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise MLServerError(
            f"Model {name}: '{MLMODEL}' does not describe a model with a pyfunc flavor", 422
        ) from None
    parts = [f"'{field}' in {MLMODEL}" for field in _CODE_FIELDS if flavor.get(field)]
    suffixes = DATA_ONLY_LOADERS.get(loader)
    if suffixes is None:
        return [*parts, f"loader {loader}"]
    return parts + _find_other_files(folder, data, suffixes)


def _find_other_files(folder: str, data: Any, suffixes: tuple[str, ...]) -> list[str]:
    """Return descriptions of the model's data files that have none of the suffixes."""
    path = os.path.realpath(os.path.join(folder, str(data)))
    if not path.startswith(os.path.realpath(folder)):
        return [f"data outside of the model's folder ('{data}')"]
    if os.path.isfile(path):
        return [] if path.endswith(suffixes) else [f"file {os.path.basename(path)}"]
    if path == os.path.realpath(folder):
        return ["data without a path"]
    files: list[str] = []
    for _, _, names in os.walk(path):
        files += names
    return [f"file {name}" for name in sorted(files) if not name.endswith(suffixes)]


__all__ = ["CodeNotAllowed", "check_code", "find_code"]
