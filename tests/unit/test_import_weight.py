"""Imported modules of the types, the command line, a worker and the server: no heavy library."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
