"""Settings of the model in one folder: from its file, its `MLmodel`, or the environment."""

from __future__ import annotations

import os

from ..runtime_hooks import find_hooks
from ..settings import ModelParameters, ModelSettings, SettingsError
from ..settings.sources import read_json_object, warn_of_unread
from .folders import MLFLOW_MODEL_FILENAME, SETTINGS_FILENAME

DEFAULT_MODEL_SETTINGS_FILENAME = SETTINGS_FILENAME
MLFLOW_IMPLEMENTATION = "mlserver_mlflow.MLflowRuntime"


def load_model_settings(path: str) -> ModelSettings:
    """Read a model's settings file; name and uri default to the folder's.

    Raises:
        SettingsError: the file is not valid; the text has one line.
    """
    path = os.path.abspath(path)
    settings = ModelSettings.parse_file(path)
    warn_of_unknown_extra(settings, path)
    return _set_defaults(settings, os.path.dirname(path))


def warn_of_unknown_extra(settings: ModelSettings, source: str) -> None:
    """Log each key of `parameters.extra` that the model's runtime does not read, once."""
    known = find_hooks(settings.implementation_).extra_keys
    if known and settings.parameters is not None:
        warn_of_unread(settings.parameters.extra, known, "parameters.extra", source)


def load_from_environment(folder: str) -> ModelSettings | None:
    """Return the model of the variables `MLSERVER_MODEL_*`; None if they have no implementation.

    Raises:
        SettingsError: a variable is not valid.
    """
    try:
        settings = ModelSettings.load()
    except SettingsError as error:
        if "implementation" in error.fields:
            return None
        raise
    return _set_defaults(settings, os.path.abspath(folder)) if settings.implementation_ else None


def load_mlflow_model(folder: str) -> ModelSettings | None:
    """Return the settings of a folder that is an MLflow model; None if it is not one.

    `MLSERVER_MODEL_*` override the folder: MLflow's own launcher relies on that.
    """
    if not os.path.isfile(os.path.join(folder, MLFLOW_MODEL_FILENAME)):
        return None
    from_environment = load_from_environment(folder)
    if from_environment is not None:
        return from_environment
    return _set_defaults(
        ModelSettings.load({"implementation": MLFLOW_IMPLEMENTATION}), os.path.abspath(folder)
    )


def create_mlflow_settings(folder: str, name: str, version: str | None) -> ModelSettings:
    """Return the settings of an MLflow model without a settings file.

    Raises:
        SettingsError: a variable `MLSERVER_MODEL_*` is not valid.
    """
    parameters = {"uri": folder} | ({"version": version} if version else {})
    return ModelSettings.load(
        {"name": name, "implementation": MLFLOW_IMPLEMENTATION, "parameters": parameters}
    )


def read_name(path: str) -> str:
    """Return the model name of an invalid settings file; the folder's name if it has none."""
    try:
        name = read_json_object(path).get("name")
    except SettingsError:
        name = None
    if isinstance(name, str) and name:
        return name
    return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _set_defaults(settings: ModelSettings, folder: str) -> ModelSettings:
    if not settings.name:
        settings.name = os.path.basename(folder)
    if settings.parameters is None:
        settings.parameters = ModelParameters.load()
    if not settings.parameters.uri:
        settings.parameters.uri = folder
    return settings
