"""Imported modules of the types, the command line, a worker and the server: no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.ports import free_ports
from support.repository import tensor, write_model, write_server_settings
from support.server import Server

WEB = {"starlette", "fastapi", "uvicorn", "aiohttp"}
MODELS = {"pandas", "mlflow", "sklearn", "scipy", "pyarrow", "matplotlib"}
PRINT_MODULES = "import sys; print(*sys.modules, file=sys.stderr)"


def loaded_by(code: str) -> set[str]:
    """Names of the modules in a new interpreter after `code`."""
    completed = subprocess.run(
        [sys.executable, "-c", f"{code}\n{PRINT_MODULES}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(completed.stderr.split())


def test_the_types_load_under_300_modules() -> None:
    loaded = loaded_by("import mlserver.types")
    assert len(loaded) < 300
    assert not loaded & {"numpy", *WEB, *MODELS}


def test_the_package_loads_no_dependency() -> None:
    assert not loaded_by("import mlserver") & {"pydantic", "numpy", "click", *WEB, *MODELS}


def test_help_loads_neither_numpy_nor_a_web_framework() -> None:
    call = "from mlserver.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(call) & {"numpy", "grpc", *WEB, *MODELS}


@pytest.mark.parametrize(
    "module",
    [
        "mlserver.server",
        "mlserver.http_workers.worker",
        "mlserver.rest",
        "mlserver.handlers",
        "mlserver.parallel",
    ],
)
def test_the_server_loads_no_model_library(module: str) -> None:
    assert not loaded_by(f"import {module}") & {"fastapi", *MODELS}


def test_the_server_loads_ray_in_no_engine() -> None:
    assert "mlserver.parallel.ray" not in loaded_by("import mlserver.server")
    assert not loaded_by("import mlserver.parallel.ray.executor") & {"ray", *MODELS}


def test_the_engine_ray_without_ray_names_the_command(tmp_path: Path) -> None:
    http_port, grpc_port, metrics_port = free_ports(3)  # the start checks them first
    write_server_settings(
        tmp_path, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port
    )
    write_model(tmp_path / "echo")
    code = f"""
import sys
sys.modules["ray"] = None
from mlserver.cli import main
main(["start", {str(tmp_path)!r}, "--engine", "ray"])
"""
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 1
    assert "pip install 'mlserver[ray]'" in completed.stderr + completed.stdout
    assert "Traceback" not in completed.stderr


def test_a_worker_loads_no_front_end() -> None:
    loaded = loaded_by("import mlserver.parallel.worker.worker")
    assert not loaded & {
        "mlserver.rest",
        "mlserver.grpc",
        "mlserver.kafka",
        "mlserver.server",
        *WEB,
        *MODELS,
    }


MODULES = """
import sys

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Modules(MLModel):
    async def predict(self, payload):
        names = sorted(sys.modules)
        output = ResponseOutput(name="modules", datatype="BYTES", shape=[len(names)], data=names)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
CONSOLE_MODULES = ("mlserver.rest.console", "mlserver.metrics.recent_errors")
MONITORING = "mlserver.handlers.monitoring"


def modules_of(server: Server) -> set[str]:
    """Names of the modules in the process of a server whose models run in its own process."""
    response = server.infer("modules", [tensor("x", [1.0], "FP64")])
    return set(response.json()["outputs"][0]["data"])


def test_a_started_server_has_loaded_nothing_of_the_console(tmp_path: Path) -> None:
    write_model(tmp_path / "modules", "Modules", source=MODULES)
    loaded = {}
    for console in (False, True):
        write_server_settings(tmp_path, console=console)
        with Server(tmp_path, workers=0) as server:
            loaded[console] = modules_of(server)
            if console:
                assert server.get("/v2/console/errors").status_code == 200
                after = modules_of(server)
    assert loaded[True] == loaded[False]
    assert not [name for name in loaded[True] if name.startswith((*CONSOLE_MODULES, MONITORING))]
    assert not [name for name in loaded[True] if name.startswith("mlserver.parallel.ray")]
    assert "ray" not in loaded[True]
    assert {"mlserver.rest.console.endpoints", MONITORING} <= after
