"""`mlserver start`: read the settings of a folder or URI, and run the server."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import re
import sys
import time
from collections.abc import Coroutine
from typing import Any

import click

from ..logging import configure_logger, logger
from ..parallel import child_main
from ..parallel.processes.templates import start_early
from ..parallel.user_account import provide_user
from ..repository.factory import ModelRepositoryFactory
from ..repository.folders import has_models
from ..repository.load import load_from_environment
from ..settings import ENV_PREFIX_SETTINGS, ModelSettings, Settings, SettingsError
from ..settings.sources import read_json_object
from ..sockets import bind

DEFAULT_SETTINGS_FILENAME = "settings.json"
MLFLOW_RUNTIME = "mlserver_mlflow.MLflowRuntime"
STATIC_REPOSITORY = "mlserver.repository.static.StaticModelRepository"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_INIT_MODE = "MODEL_INIT_MODE"
_FOLDER_POLL_INTERVAL = 0.1  # seconds
_PORT = click.IntRange(0, 65535)


@click.command(
    name="start", short_help="Serve the models of a folder, or one MLflow model by its URI."
)
@click.argument("model", metavar="[FOLDER|URI]", default=".", type=click.Path())
@click.option("--host", help="Address to listen on.")
@click.option("--http-port", type=_PORT, help="Port for REST; 0 = any free port.")
@click.option("--grpc-port", type=_PORT, help="Port for gRPC; 0 = any free port.")
@click.option("--metrics-port", type=_PORT, help="Port for metrics; 0 = any free port.")
@click.option(
    "--workers",
    "parallel_workers",
    type=click.IntRange(0),
    help="Worker processes that run models; 0 = run models in the server's process.",
)
@click.option(
    "--http-workers",
    type=click.IntRange(1),
    help="HTTP worker processes, which serve HTTP and gRPC on the same ports.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    help="What runs the models: processes of this machine, or replicas in a Ray cluster.",
)
@click.option(
    "--address",
    help="Address of the Ray cluster: auto, host:port, ray://host:port, or local.",
)
@click.option("--name", help="Name of the model, for a URI or the folder of an MLflow model.")
def command(model: str, name: str | None, address: str | None, **flags: Any) -> None:
    """Serve the models of FOLDER, or the MLflow model at URI.

    FOLDER has MLflow models or model-settings.json files at any depth, and optionally a
    settings.json; or FOLDER is an MLflow model. An MLflow model without a settings file is served
    under its folder's name; a folder with a number as its name is a version of its parent folder.
    URI is any URI that MLflow can load, such as models:/wine@champion, models:/wine/3,
    runs:/ID/model or s3://bucket/model. Options here override settings.json, which overrides
    MLSERVER_ environment variables.

    \b
    Examples:
      mlserver start models --workers 4
      mlserver start models:/wine@champion --http-port 9000
    """
    overrides = {field: value for field, value in flags.items() if value is not None}
    if address is not None:
        overrides["ray"] = {"address": address}
    settings = prepare_settings(model, name, overrides)
    _require_free_ports(settings)
    # Its imports overlap with those of the front ends.
    template = start_early(settings)
    from ..server import MLServer

    async def serve() -> None:
        await MLServer(settings, template).start()

    run_event_loop(serve())


def _require_free_ports(settings: Settings) -> None:
    """Raise if another program has a port, before the seconds in which libraries are imported.

    Raises:
        SettingsError: two settings have the same port.
        MLServerError: an address cannot be bound.
    """
    addresses = [("http_port", settings.host), ("grpc_port", settings.host)]
    if settings.has_metrics_port:
        addresses.append(("metrics_port", settings.host))
    if settings.admin_port is not None:
        addresses.append(("admin_port", settings.admin_host))
    names: dict[tuple[str, int], str] = {}
    for name, host in addresses:
        port = getattr(settings, name)
        if not port:
            continue
        other = names.setdefault((host, port), name)
        if other != name:
            raise SettingsError(
                f"Settings '{other}' and '{name}': expected different ports, received {port}"
            )
        bind(host, port, name, listens=False).close()


def prepare_settings(
    model: str,
    name: str | None = None,
    overrides: dict[str, Any] | None = None,
    may_be_empty: bool = False,
) -> Settings:
    """Return the server's settings for a folder or URI, and put the folder first on `sys.path`.

    Args:
        overrides: Values of command-line options, by the name of their setting.
        may_be_empty: Whether the folder may have no models.

    Raises:
        SettingsError: the folder does not exist or has no models, or a settings file is invalid.
    """
    provide_user()
    if _URI.match(model):
        return _make_uri_settings(model, name or get_model_name(model), overrides or {})
    if not os.path.exists(model) and os.environ.get(_INIT_MODE) == "async":
        _wait_for_folder(model)
    if not os.path.isdir(model):
        state = "is a file" if os.path.exists(model) else "does not exist"
        raise SettingsError(f"{model}: expected a folder with models, but it {state}")
    for path in (os.path.abspath(model), os.getcwd()):
        if path not in sys.path:
            sys.path.insert(0, path)
    if name is None:
        settings = read_settings(model, overrides)
        if not may_be_empty:
            _require_models(model, settings)
        return settings
    if not os.path.isfile(os.path.join(model, "MLmodel")):
        raise SettingsError(
            f"--name: {model} is not an MLflow model; model-settings.json files define the names"
        )
    return _make_uri_settings(os.path.abspath(model), name, overrides or {})


def _wait_for_folder(folder: str) -> None:
    """Return when the folder exists, at the latest after `load_timeout`.

    KServe starts the container that has the model of an `oci://` address after this one, and says
    so by the variable. Its folder appears at once, as a link.
    """
    settings = Settings.load()
    limit = settings.load_timeout
    deadline = math.inf if limit is None else time.monotonic() + limit
    configure_logger(settings).info("Waiting for %s, which %s=async announces", folder, _INIT_MODE)
    while not os.path.exists(folder) and time.monotonic() < deadline:
        time.sleep(_FOLDER_POLL_INTERVAL)


def _require_models(folder: str, settings: Settings) -> None:
    """Raise unless the folder has models, or the settings configure a server without models.

    Raises:
        SettingsError: the folder has neither models nor settings.
    """
    has_settings = os.path.isfile(os.path.join(folder, DEFAULT_SETTINGS_FILENAME))
    may_be_empty = (
        has_settings
        or not settings.load_models_at_startup
        or settings.model_repository_implementation
    )
    if may_be_empty or has_models(folder) or load_from_environment(folder) is not None:
        return
    raise SettingsError(
        f"{folder}: no models found: expected the file 'MLmodel' or 'model-settings.json' in the"
        " folder or below; 'mlserver init' writes an example model, 'mlserver demo' serves one;"
        " to start a server without models, set 'load_models_at_startup' to false in settings.json"
        " or MLSERVER_LOAD_MODELS_AT_STARTUP"
    )


async def load_settings(folder: str | None = None) -> tuple[Settings, list[ModelSettings]]:
    """Return the settings of the server and of the models that it loads at its start.

    For programs that start a server without the command line.

    Args:
        folder: Model repository, with an optional `settings.json`; None = the current folder, with
            settings from environment variables only.

    Raises:
        SettingsError: the folder does not exist, or a settings file is invalid.
    """
    import_folder = "." if folder is None else folder
    if import_folder not in sys.path:
        sys.path.insert(0, import_folder)
    settings = Settings.load() if folder is None else read_settings(folder)
    if not settings.load_models_at_startup:
        return settings, []
    return settings, list(await ModelRepositoryFactory.resolve_model_repository(settings).list())


def read_settings(folder: str, overrides: dict[str, Any] | None = None) -> Settings:
    """Return `overrides` over the folder's `settings.json` over environment variables.

    The model repository is the folder.
    """
    path = os.path.join(folder, DEFAULT_SETTINGS_FILENAME)
    has_file = os.path.isfile(path)
    file_settings = read_json_object(path) if has_file else {}
    values = {**file_settings, **(overrides or {})}
    for key, value in (overrides or {}).items():
        if isinstance(value, dict) and isinstance(file_settings.get(key), dict):
            values[key] = {**file_settings[key], **value}
    settings = Settings.load(values, path if has_file else None)
    _warn_about_overridden_variables(path, file_settings)
    settings.model_repository_root = folder
    settings.record_origin("model_repository_root", "argument")
    for key in overrides or {}:
        settings.record_origin(key, "option")
    return settings


def _warn_about_overridden_variables(path: str, file_settings: dict[str, Any]) -> None:
    """Log each environment variable that the settings file overrides with another value."""
    variables = {name.upper(): value for name, value in os.environ.items()}
    for key, value in file_settings.items():
        name = f"{ENV_PREFIX_SETTINGS}{key}".upper()
        variable = variables.get(name)
        if not variable or not isinstance(value, (str, int, float, bool)):
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        if variable.lower() != text.lower():
            logger.warning("%s has no effect: %s sets '%s' to %s", name, path, key, text)


def _make_uri_settings(uri: str, name: str, overrides: dict[str, Any]) -> Settings:
    if importlib.util.find_spec("mlserver_mlflow") is None:
        raise click.ClickException(
            "MLflow models need the MLflow runtime: pip install mlserver-mlflow"
        )
    settings = Settings.load(overrides)
    settings.model_repository_implementation = STATIC_REPOSITORY
    model = {"name": name, "implementation": MLFLOW_RUNTIME, "parameters": {"uri": uri}}
    settings.model_repository_implementation_args = {"models": [model]}
    for key in ("model_repository_implementation", "model_repository_implementation_args"):
        settings.record_origin(key, "argument")
    for key in overrides:
        settings.record_origin(key, "option")
    return settings


def get_model_name(uri: str) -> str:
    """Return the name of the registered model, or the last component of another URI's path."""
    scheme, _, rest = uri.partition(":")
    parts = [part for part in rest.partition("?")[0].split("/") if part]
    if not parts:
        raise SettingsError(
            f"{uri}: expected a model URI, such as models:/name@alias or runs:/ID/model"
        )
    return parts[0].partition("@")[0] if scheme == "models" else parts[-1]


def run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run the main coroutine of the server."""
    # One batch of requests allocates more objects than Python's default threshold of 700.
    gc.set_threshold(20_000, 20, 20)
    child_main.run(main)
