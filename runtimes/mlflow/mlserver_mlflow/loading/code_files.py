"""Which parts of an MLflow model are code, for servers that run only what is trusted. Nothing of the model is read as code here.

A model is data only if its loader is known to read nothing but data, from a file of a format without code.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from mlserver.errors import MLServerError
from mlserver.security.code_policy import CodeNotAllowed, current_policy

MLMODEL = "MLmodel"
# Loader -> file endings of the formats that it reads without running any code of the model.
DATA_ONLY = {
    "mlflow.onnx": (".onnx",),
    "mlflow.xgboost": (".json", ".ubj", ".xgb"),
    "mlflow.lightgbm": (".lgb", ".txt"),
    "mlflow.catboost": (".cb",),
}


def checked(name: str, folder: str) -> str:
    """The folder to load the model from, if it may be loaded.

    Raises:
        Untrusted: parts of it are code, and it is not trusted.
    """
    if current_policy().checks_files:
        current_policy().check_files(name, folder, code_in(name, folder))
    return folder


def code_in(name: str, folder: str) -> list[str]:
    """The parts of the model in a folder that are code, in words. Raises `MLServerError` for what is no MLflow model."""
    yaml: Any = importlib.import_module("yaml")
    try:
        with open(os.path.join(folder, MLMODEL), encoding="utf-8") as file:
            described = yaml.safe_load(file)
        flavor = described["flavors"]["python_function"]
        loader, data = (
            str(flavor["loader_module"]),
            flavor.get("model_path") or flavor.get("data") or ".",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise MLServerError(
            f"Model {name}: '{MLMODEL}' does not describe a model with a pyfunc flavor", 422
        ) from None
    found = [
        f"'{key}' in {MLMODEL}"
        for key in ("code", "model_code_path", "python_model")
        if flavor.get(key)
    ]
    formats = DATA_ONLY.get(loader)
    if formats is None:
        return [*found, f"loader {loader}"]
    return found + _other_files(folder, data, formats)


def _other_files(folder: str, data: Any, formats: tuple[str, ...]) -> list[str]:
    """Files of the model's data that are not in one of the formats."""
    place = os.path.realpath(os.path.join(folder, str(data)))
    if not place.startswith(os.path.realpath(folder)):
        return [f"data outside of the model's folder ('{data}')"]
    if os.path.isfile(place):
        return [] if place.endswith(formats) else [f"file {os.path.basename(place)}"]
    if place == os.path.realpath(folder):
        return ["data that is not named"]
    files = [name for _, _, names in os.walk(place) for name in names]
    return [f"file {name}" for name in sorted(files) if not name.endswith(formats)]


__all__ = ["CodeNotAllowed", "checked", "code_in"]
