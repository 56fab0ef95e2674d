"""`mlserver start`: settings from the folder or a URI, then the server until it is told to stop."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import sys
from collections.abc import Coroutine
from typing import Any

import click

from ..logging import logger
from ..parallel import child_main
from ..parallel.user_account import provide_user
from ..repository.factory import ModelRepositoryFactory
from ..repository.folders import has_models
from ..repository.load import load_from_environment
from ..settings import ENV_PREFIX_SETTINGS, ModelSettings, Settings, SettingsError
from ..settings.sources import read_json_object

DEFAULT_SETTINGS_FILENAME = "settings.json"
MLFLOW = "mlserver_mlflow.MLflowRuntime"
GIVEN_MODELS = "mlserver.repository.static.StaticModelRepository"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PORT = click.IntRange(0, 65535)


@click.command(
    name="start", short_help="Serve the models of a folder, or one MLflow model from anywhere."
)
@click.argument("model", metavar="FOLDER|URI", type=click.Path())
@click.option("--host", help="Address to listen on.")
@click.option("--http-port", type=_PORT, help="Port for REST; 0 = any free one.")
@click.option("--grpc-port", type=_PORT, help="Port for gRPC; 0 = any free one.")
@click.option("--metrics-port", type=_PORT, help="Port for metrics; 0 = any free one.")
@click.option(
    "--workers", "parallel_workers", type=click.IntRange(0), help="Worker processes; 0 = none."
)
@click.option(
    "--http-workers",
    type=click.IntRange(1),
    help="Processes that speak HTTP and gRPC on the same ports.",
)
@click.option("--name", help="Name of the model; for a URI, or a folder that is an MLflow model.")
def command(model: str, name: str | None, **flags: Any) -> None:
    """Serve the models of FOLDER, or the MLflow model at URI.

    FOLDER holds MLflow models or model-settings.json files at any depth, and perhaps a settings.json, or is itself an
    MLflow model. An MLflow model without a settings file is served under its folder's name; a folder with a number is a
    version of the folder above. URI is any address that MLflow can load from, such as models:/wine@champion, models:/wine/3, runs:/ID/model or
    s3://bucket/model. Options here beat settings.json, which beats MLSERVER_ variables.
    """
    given = {field: value for field, value in flags.items() if value is not None}
    settings = prepare(model, name, given)
    from ..server import MLServer

    async def serve() -> None:
        await MLServer(settings).start()

    run(serve())


def prepare(model: str, name: str | None = None, flags: dict[str, Any] | None = None) -> Settings:
    """The server's settings for a folder or URI, with the folder first among the places that models import from.

    Raises:
        SettingsError: no such folder, or a settings file that is wrong.
    """
    provide_user()
    if _URI.match(model):
        return _of_uri(model, name or name_of_uri(model), flags or {})
    if not os.path.isdir(model):
        what = "is a file" if os.path.exists(model) else "does not exist"
        raise SettingsError(f"{model}: expected a folder with models, but it {what}")
    for path in (os.path.abspath(model), os.getcwd()):
        if path not in sys.path:
            sys.path.insert(0, path)
    if name is None:
        settings = read_settings(model, flags)
        _require_models(model, settings)
        return settings
    if not os.path.isfile(os.path.join(model, "MLmodel")):
        raise SettingsError(
            f"--name: {model} is not an MLflow model; the names are in its model-settings.json files"
        )
    return _of_uri(os.path.abspath(model), name, flags or {})


def _require_models(folder: str, settings: Settings) -> None:
    """Refuse a folder with neither models nor settings: a server without models is hardly ever what was meant.

    Raises:
        SettingsError: there is nothing to serve, and no settings.json or setting that asks for a server without models.
    """
    has_settings = os.path.isfile(os.path.join(folder, DEFAULT_SETTINGS_FILENAME))
    is_meant = (
        has_settings
        or not settings.load_models_at_startup
        or settings.model_repository_implementation
    )
    if is_meant or has_models(folder) or load_from_environment(folder) is not None:
        return
    raise SettingsError(
        f"{folder}: no models found: expected a folder with the file 'MLmodel' or 'model-settings.json', here or below;"
        " 'mlserver init' writes a model; for a server that gets its models later, set 'load_models_at_startup' to"
        " false in settings.json or MLSERVER_LOAD_MODELS_AT_STARTUP"
    )


async def load_settings(folder: str | None = None) -> tuple[Settings, list[ModelSettings]]:
    """Return the server's settings and those of the models to load at its start, for programs that start a server.

    Args:
        folder: The model repository, with its `settings.json` if there is one; None = the current folder, with settings
            from the environment alone.

    Raises:
        SettingsError: no such folder, or a settings file that is wrong.
    """
    folder_or_here = "." if folder is None else folder
    if folder_or_here not in sys.path:
        sys.path.insert(0, folder_or_here)
    settings = Settings.load() if folder is None else read_settings(folder)
    if not settings.load_models_at_startup:
        return settings, []
    return settings, list(await ModelRepositoryFactory.resolve_model_repository(settings).list())


def read_settings(folder: str, flags: dict[str, Any] | None = None) -> Settings:
    """`flags` over `settings.json` of the folder over the environment; the repository is the folder itself."""
    path = os.path.join(folder, DEFAULT_SETTINGS_FILENAME)
    there = os.path.isfile(path)
    written = read_json_object(path) if there else {}
    settings = Settings.load({**written, **(flags or {})}, path if there else None)
    _warn_of_ineffective_variables(path, written)
    settings.model_repository_root = folder
    return settings


def _warn_of_ineffective_variables(path: str, written: dict[str, Any]) -> None:
    """Say which variables have no effect because the settings file has another value."""
    variables = {name.upper(): value for name, value in os.environ.items()}
    for key, value in written.items():
        name = f"{ENV_PREFIX_SETTINGS}{key}".upper()
        given = variables.get(name)
        text = value if isinstance(value, str) else json.dumps(value)
        if given and isinstance(value, (str, int, float, bool)) and given.lower() != text.lower():
            logger.warning("%s has no effect: %s says '%s': %s", name, path, key, text)


def _of_uri(uri: str, name: str, flags: dict[str, Any]) -> Settings:
    if importlib.util.find_spec("mlserver_mlflow") is None:
        raise click.ClickException(
            "MLflow models need the MLflow runtime: pip install mlserver-mlflow"
        )
    settings = Settings.load(flags)
    settings.model_repository_implementation = GIVEN_MODELS
    model = {"name": name, "implementation": MLFLOW, "parameters": {"uri": uri}}
    settings.model_repository_implementation_args = {"models": [model]}
    return settings


def name_of_uri(uri: str) -> str:
    """The name under which the model at a URI is served: the registered model's, else the last part of the path."""
    scheme, _, rest = uri.partition(":")
    parts = [part for part in rest.partition("?")[0].split("/") if part]
    if not parts:
        raise SettingsError(
            f"{uri}: expected a model's address, such as models:/name@alias or runs:/ID/model"
        )
    return parts[0].partition("@")[0] if scheme == "models" else parts[-1]


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run the server's life on its event loop."""
    # Python's own 700 are less than the objects of one batch of requests: the collector would run all the time.
    gc.set_threshold(20_000, 20, 20)
    child_main.run(work)
