"""The measured servers: environment, command, supported cases and wires."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import environments
from .cases import Case

PROGRAMS = Path(__file__).parent / "programs"
RUNTIMES = {
    "sum": "models.RowSums",
    "text": "models.Upper",
    "busy": "models.Busy",
    "wait": "models.Wait",
}
# MLServer 1.x awaits the result of `predict`.
RUNTIMES_OF_MLSERVER1 = RUNTIMES | {"wait": "models.WaitInThread"}
HOST = "127.0.0.1"
START_LIMIT = 60.0  # seconds


@dataclass(frozen=True)
class Place:
    """Files, interpreter and ports for one start of a server.

    Attributes:
        folder: Empty folder for the server's files.
        wine: Folder of the trained model.
        python: Interpreter of the environment; its commands are beside it.
    """

    case: Case
    folder: Path
    wine: Path
    python: Path
    http_port: int
    grpc_port: int
    metrics_port: int


@dataclass(frozen=True)
class Start:
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Server:
    """A measured server.

    Attributes:
        wires: Supported wires; a case is measured over those that it names too.
        cases: Names of the supported cases; empty = any case of one model.
        copies: Supports several models.
        plain_path: Path of its "plain" requests, if not FastAPI's.
        checked: Its responses are compared with the expected values (not for an echo).
    """

    name: str
    title: str
    environment: str
    start: Callable[[Place], Start]
    wires: tuple[str, ...]
    cases: tuple[str, ...] = ()
    copies: bool = False
    plain_path: str | None = None
    checked: bool = True

    def get_wires(self, case: Case) -> tuple[str, ...]:
        """Return the wires over which the case is measured."""
        if (self.cases and case.name not in self.cases) or (case.copies and not self.copies):
            return ()
        return tuple(wire for wire in case.wires if wire in self.wires)


def wait_ready(port: int) -> None:
    """Return when the server of an HTTP port is ready; exit after `START_LIMIT` seconds."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the server is not ready in time")


def free_ports(count: int) -> list[int]:
    """Return unused ports of 127.0.0.1; all are bound until all are known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def address_variables(
    http_port: int, grpc_port: int, metrics_port: int | None = None
) -> dict[str, str]:
    """Return the variables of an mlserver on these ports of 127.0.0.1; None = no metrics port."""
    return {
        "MLSERVER_HOST": HOST,
        "MLSERVER_HTTP_PORT": str(http_port),
        "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": "none" if metrics_port is None else str(metrics_port),
    }


def mlflow_settings(name: str, model: Path) -> dict[str, object]:
    """Return the `model-settings.json` of an MLflow model in a folder."""
    return {
        "name": name,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(model)},
    }


def environment(place: Place, extra: dict[str, str]) -> dict[str, str]:
    """Return this process's variables, except those of servers, and the variables of the start."""
    foreign = ("MLSERVER_", "MLFLOW_", "RAY_", "BENTOML_", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {
        "PATH": f"{place.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(PROGRAMS),
        "PYTHONUNBUFFERED": "1",
        "BENCH_MODEL": place.case.model,
        "BENCH_WINE": str(place.wine),
        "BENCH_COPIES": str(place.case.copies),
        "BENCH_PORT": str(place.http_port),
        "BENCH_GRPC_PORT": str(place.grpc_port),
    }
    return kept | own | extra


def _mlserver(place: Place, batch: int = 0, wait: float = 0.0) -> Start:
    """Start mlserver 2 or MLServer 1.x with its defaults, except ports and batching."""
    case = place.case
    for name in [f"{case.model}-{number}" for number in range(case.copies)] or [case.model]:
        if case.model == "wine":
            settings = mlflow_settings(name, place.wine)
        else:
            is_own = place.python == environments.python(environments.OWN)
            runtimes = RUNTIMES if is_own else RUNTIMES_OF_MLSERVER1
            settings = {"name": name, "implementation": runtimes[case.model]}
        if batch:
            settings |= {"max_batch_size": batch, "max_batch_time": wait}
        folder = place.folder / name
        folder.mkdir()
        (folder / "model-settings.json").write_text(json.dumps(settings))
    variables = address_variables(place.http_port, place.grpc_port, place.metrics_port)
    return Start([str(place.python.parent / "mlserver"), "start", str(place.folder)], variables)


def _mlserver_batching(place: Place) -> Start:
    return _mlserver(place, batch=64, wait=0.005)


def _mlflow(place: Place) -> Start:
    command = [
        str(place.python.parent / "mlflow"),
        "models",
        "serve",
        "--env-manager",
        "local",
        "-m",
        str(place.wine),
    ]
    return Start([*command, "-h", HOST, "-p", str(place.http_port)])


def _uvicorn(program: str, *options: str, **extra: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        command = [
            str(place.python),
            "-m",
            "uvicorn",
            program,
            "--host",
            HOST,
            "--port",
            str(place.http_port),
            *options,
        ]
        return Start(command, extra)

    return start


def _program(name: str, **extra: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        return Start([str(place.python), str(PROGRAMS / name)], extra)

    return start


def _bentoml(place: Place) -> Start:
    options = ["--host", HOST, "--port", str(place.http_port)]
    command = [str(place.python), "-m", "bentoml", "serve", "bentoml_service:service", *options]
    return Start(
        command, {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(place.folder)}, PROGRAMS
    )


QUIET = ("--no-access-log", "--log-level", "warning")
GRPC = ("grpc", "grpc-typed")
V2_SERVER = ("v2", "invocations", *GRPC)
BATCHING = {"BASELINE_BATCHING": "1"}
NO_STATISTICS = {"RAY_USAGE_STATS_ENABLED": "0"}
WINE = ("wine-1", "wine-100", "wine-10000")

SERVERS = (
    Server(
        "ours",
        "mlserver 2",
        environments.OWN,
        _mlserver,
        (*V2_SERVER, "binary", "arrow"),
        copies=True,
    ),
    Server("mlserver1", "MLServer 1.7.1", "mlserver1", _mlserver, V2_SERVER, copies=True),
    Server(
        "mlserver1-batching",
        "MLServer 1.7.1, batches of 64",
        "mlserver1",
        _mlserver_batching,
        ("v2",),
        WINE[:1],
    ),
    Server("mlflow", "MLflow's server", "mlflow", _mlflow, ("invocations",), WINE),
    Server(
        "kserve",
        "KServe",
        "kserve",
        _program("kserve_app.py"),
        ("v2", "binary", *GRPC),
        copies=True,
    ),
    Server("bentoml", "BentoML", "bentoml", _bentoml, ("plain",), plain_path="/predict"),
    Server(
        "litserve",
        "LitServe",
        "litserve",
        _program("litserve_app.py"),
        ("plain",),
        plain_path="/predict",
    ),
    Server(
        "rayserve",
        "Ray Serve",
        "rayserve",
        _program("ray_app.py", **NO_STATISTICS),
        ("plain",),
        plain_path="/",
    ),
    Server("fastapi", "a FastAPI program", "plain", _uvicorn("fastapi_app:app"), ("plain",)),
    Server(
        "baseline",
        "baseline",
        "plain",
        _uvicorn("baseline:app", *QUIET),
        ("v2", "invocations"),
        WINE,
    ),
    Server(
        "baseline-batching",
        "baseline, batching",
        "plain",
        _uvicorn("baseline:app", *QUIET, **BATCHING),
        ("v2", "invocations"),
        WINE,
    ),
    Server(
        "echo",
        "echo",
        "plain",
        _uvicorn("echo:app", *QUIET),
        ("invocations",),
        WINE[:1],
        checked=False,
    ),
    Server(
        "grpc-echo",
        "gRPC echo",
        environments.OWN,
        _program("grpc_echo.py"),
        ("grpc",),
        WINE[:1],
        checked=False,
    ),
)
BY_NAME = {server.name: server for server in SERVERS}
BASE = "ours"
