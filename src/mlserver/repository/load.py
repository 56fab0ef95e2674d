"""From one folder to the settings of the model in it: a settings file, an MLflow model, or the environment alone."""

from __future__ import annotations

import os

from ..settings import ModelParameters, ModelSettings, SettingsError
from ..settings.sources import read_json_object
from .folders import MLFLOW_MODEL_FILENAME, SETTINGS_FILENAME

DEFAULT_MODEL_SETTINGS_FILENAME = SETTINGS_FILENAME
MLFLOW_IMPLEMENTATION = "mlserver_mlflow.MLflowRuntime"


def load_model_settings(path: str) -> ModelSettings:
    """Read a model's settings file. The folder gives the name and the uri where the file and the environment do not.

    Raises:
        SettingsError: One line that says what is wrong with the file.
    """
    path = os.path.abspath(path)
    settings = ModelSettings.parse_file(path)
    return _complete(settings, os.path.dirname(path))


def load_from_environment(folder: str) -> ModelSettings | None:
    """The model that `MLSERVER_MODEL_*` describe; None if they name no implementation.

    Raises:
        SettingsError: A variable is wrong.
    """
    try:
        settings = ModelSettings.load()
    except SettingsError as error:
        if "implementation" in error.fields:
            return None
        raise
    return _complete(settings, os.path.abspath(folder)) if settings.implementation_ else None


def load_mlflow_model(folder: str) -> ModelSettings | None:
    """The MLflow model that the folder itself is, under the folder's name; None if it is not one.

    `MLSERVER_MODEL_*` beat what the folder says, as MLflow's own launcher relies on.
    """
    if not os.path.isfile(os.path.join(folder, MLFLOW_MODEL_FILENAME)):
        return None
    from_environment = load_from_environment(folder)
    if from_environment is not None:
        return from_environment
    return _complete(
        ModelSettings.load({"implementation": MLFLOW_IMPLEMENTATION}), os.path.abspath(folder)
    )


def describe_mlflow_model(folder: str, name: str, version: str | None) -> ModelSettings:
    """The settings of an MLflow model that was found without a settings file.

    Raises:
        SettingsError: a variable `MLSERVER_MODEL_*` is wrong.
    """
    parameters = {"uri": folder} | ({"version": version} if version else {})
    return ModelSettings.load(
        {"name": name, "implementation": MLFLOW_IMPLEMENTATION, "parameters": parameters}
    )


def name_of(path: str) -> str:
    """The name of the model that a settings file is about, as far as that can be told from a file that is wrong."""
    try:
        name = read_json_object(path).get("name")
    except SettingsError:
        name = None
    return (
        name
        if isinstance(name, str) and name
        else os.path.basename(os.path.dirname(os.path.abspath(path)))
    )


def _complete(settings: ModelSettings, folder: str) -> ModelSettings:
    if not settings.name:
        settings.name = os.path.basename(folder)
    if settings.parameters is None:
        settings.parameters = ModelParameters.load()
    if not settings.parameters.uri:
        settings.parameters.uri = folder
    return settings
