"""`mlserver demo`: train a small model, register it with MLflow, serve it, print what to try."""

from __future__ import annotations

import importlib.util
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..settings import Settings, SettingsError
from .serve import prepare_settings, run_event_loop
from .terminal import CommandError, interrupt_on_sigterm

INSTALL = "pip install 'mlserver-mlflow[demo]'"
MODEL, URI = "wine", "models:/wine@champion"
HOST = "127.0.0.1"
_PACKAGES = ("mlserver_mlflow", "mlflow", "sklearn", "sqlalchemy")
_PORTS = ("http_port", "grpc_port", "metrics_port")
_ROW = '{"dataframe_records": [{"alcohol": 13.2, "malic_acid": 1.8, "ash": 2.1}]}'
_PORT = click.IntRange(0, 65535)


@click.command(name="demo", short_help="Train a small model with MLflow, and serve it.")
@click.option("--http-port", type=_PORT, help="Port for REST.  [default: 8080, or a free one]")
@click.option("--grpc-port", type=_PORT, help="Port for gRPC.  [default: 8081, or a free one]")
@click.option("--metrics-port", type=_PORT, help="Port for metrics.  [default: 8082, or free]")
def command(**flags: Any) -> None:
    """Train a classifier on data that is part of scikit-learn, register it in a temporary MLflow
    store, serve it on this machine only, and print requests to try. Needs no network.

    Everything is removed when the server stops.

    \b
    Examples:
      mlserver demo
      mlserver demo --http-port 9000
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(f"the demo needs {', '.join(missing)}: {INSTALL}")
    options = {name: port for name, port in flags.items() if port is not None}
    with tempfile.TemporaryDirectory(prefix="mlserver-demo-") as folder:
        _set_environment(folder)
        settings = make_settings(options)
        _train(folder)
        _serve(settings, Path(folder))


def _set_environment(folder: str) -> None:
    """Set MLflow's variables for this process and its children."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.environ.pop("MLFLOW_REGISTRY_URI", None)
    # MLflow would send usage data.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ["MLSERVER_MLFLOW_CACHE"] = os.path.join(folder, "cache")


def make_settings(options: Mapping[str, int]) -> Settings:
    """Return the settings of the server, with free ports in place of busy ones.

    Raises:
        SettingsError: the port of an option is busy.
    """
    settings = prepare_settings(URI, MODEL, {"host": HOST, **options})
    for name in _PORTS:
        port = getattr(settings, name)
        if not port or is_free(port):
            continue
        if name in options:
            raise SettingsError(f"--{name.replace('_', '-')}: port {port} is in use")
        click.echo(f"Port {port} ({name}) is in use: taking a free one.")
        setattr(settings, name, 0)
    return settings


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _train(folder: str) -> None:
    """Train and register the model in a process of its own."""
    with interrupt_on_sigterm():
        done = subprocess.run(
            [sys.executable, "-m", "mlserver_mlflow.demo", folder],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise CommandError(f"the model could not be trained: {lines[-1]}")


def _serve(settings: Settings, folder: Path) -> None:
    from ..server import MLServer

    def print_requests(addresses: Mapping[str, str]) -> None:
        click.echo(format_requests(addresses, folder))

    async def serve() -> None:
        await MLServer(settings).start(on_ready=print_requests)

    run_event_loop(serve())


def format_requests(addresses: Mapping[str, str], folder: Path) -> str:
    """Return what to try in a browser and from another terminal."""
    rest = addresses["REST"]
    header = "-H 'content-type: application/json'"
    rows = shlex.quote(str(folder / "wines.csv"))
    requests = {
        "MLflow's protocol": f"curl -s {rest}/invocations {header} -d '{_ROW}'",
        "A table, row by row": f"mlserver infer -u {rest} -m {MODEL} -i {rows} -o classes.csv",
        "The model's inputs": f"curl -s {rest}/v2/models/{MODEL}",
    }
    lines = [f"  {title}:\n  {request}\n" for title, request in requests.items()]
    if console := addresses.get("console"):
        lines.insert(0, f"  A form for the model, in a browser:\n  {console}#/try/{MODEL}\n")
    return "\n".join(["Try also, the commands from another terminal:\n", *lines])
