"""Builds the Python environment that an MLflow model asks for, from the requirements in its files, with uv or pip.

`parameters.extra.env_manager` chooses: `local` (the server's own environment, the default), `uv`, or `virtualenv`. What was
built is kept in `environments_dir` by the hash of all that went into it, and used by every model with the same.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..security import code_policy
from ..settings import ModelSettings

logger = get_logger()

LOCAL, MANAGERS = "local", ("local", "uv", "virtualenv")
RUNTIME = "mlserver_mlflow"
# What a worker with an MLflow model imports, and no more: a model's own pins come first. `make test-floors` runs a worker
# with the lowest of these versions; the server's own requirements are in pyproject.toml.
WORKER_REQUIREMENTS = (
    "pydantic>=2.7,<3",
    "pydantic-settings>=2.3,<3",
    "orjson>=3.9",
    "msgspec>=0.18.5",
    "numpy>=1.23.5",
    "pandas>=1.5.3",
    "mlflow-skinny>=2.15,<4",
    "uvloop>=0.19; sys_platform != 'win32'",
)
# What uv and pip say last is the reason; more of it is in the log.
REASON = 600
_running: set[subprocess.Popen[Any]] = set()
_lock = threading.Lock()


class EnvironmentBuildError(MLServerError):
    """A model's environment could not be built; the text is what the installer said last."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The environment of model {name} cannot be built: {reason}", 500)


@dataclass(frozen=True)
class EnvironmentSpec:
    """All that decides what an environment holds.

    Attributes:
        model: The model's name, for messages.
        python: `major.minor`.
        lines: Requirements, the model's and this server's own.
        folder: The model's folder, which requirements and constraints may refer to.
        source: Where the model's address pointed to when its files were read.
    """

    model: str
    manager: str
    python: str
    lines: tuple[str, ...]
    folder: str
    source: str

    @property
    def key(self) -> str:
        files = [
            _read(os.path.join(self.folder, name))
            for name in ("requirements.txt", "constraints.txt")
        ]
        parts = [self.manager, self.python, self.lines, files, sys.version, platform.machine()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_environment_spec(settings: ModelSettings) -> EnvironmentSpec | None:
    """What to build for a model; None = it runs in the server's own environment. Blocks: the model may have to be fetched.

    Raises:
        MLServerError: the manager is not known, the model cannot be fetched, or it names no requirements.
        Untrusted: building and running it is running code, and the settings do not allow that.
    """
    parameters = settings.parameters
    manager = parameters.extra.get("env_manager", LOCAL) if parameters else LOCAL
    if manager not in MANAGERS:
        raise EnvironmentBuildError(
            settings.name, f"'env_manager' must be one of {', '.join(MANAGERS)}, not '{manager}'"
        )
    if manager == LOCAL:
        return None
    read = _read_model(settings)
    # Installers run code of the packages that they are told to install.
    code = [*read["code"], f"requirements that '{manager}' installs"]
    code_policy.rules().check_files(settings.name, read["folder"], code)
    lines = (*read["lines"], *WORKER_REQUIREMENTS)
    return EnvironmentSpec(
        settings.name,
        manager,
        read["python"] or _own_version(),
        lines,
        read["folder"],
        read["source"],
    )


def _read_model(settings: ModelSettings) -> dict[str, Any]:
    """The model's files and what they say, from a process of the runtime's: this one knows no MLflow."""
    if importlib.util.find_spec(RUNTIME) is None:
        raise EnvironmentBuildError(
            settings.name, "'env_manager' is for MLflow models: pip install mlserver-mlflow"
        )
    logger.info(
        "Model '%s': reading its requirements, after fetching it if it is not here yet",
        settings.name,
    )
    command = [sys.executable, "-P", "-m", f"{RUNTIME}.loading.environment_spec"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_variables()
    )
    with _stoppable(process):
        answer, _ = process.communicate(settings.to_frame())
    if process.returncode:
        raise EnvironmentBuildError(
            settings.name, f"its files could not be read (code {process.returncode}); see the log"
        )
    read: dict[str, Any] = json.loads(answer)
    if "error" in read:
        raise MLServerError(read["error"], read["status"])
    return read


def _own_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def build(recipe: EnvironmentSpec, folder: str) -> None:
    """Make the environment in `folder`, anew. Blocks, with progress in the log. Raises `EnvironmentBuildError`."""
    shutil.rmtree(folder, ignore_errors=True)
    logger.info(
        "Building the environment of model '%s' with %s: %s", recipe.model, recipe.manager, folder
    )
    make, install = (
        _with_uv(recipe, folder) if recipe.manager == "uv" else _with_pip(recipe, folder)
    )
    try:
        _run(recipe, make)
        list_of_requirements = os.path.join(folder, "requirements-of-model.txt")
        with open(list_of_requirements, "w", encoding="utf-8") as file:
            # Files are meant from the model's folder, where the list does not lie.
            file.writelines(f"{_rooted(line, recipe.folder)}\n" for line in recipe.lines)
        _run(recipe, [*install, "-r", list_of_requirements])
        _link_runtime(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    logger.info("Built the environment of model '%s'", recipe.model)


def _rooted(line: str, folder: str) -> str:
    option, _, path = line.partition(" ")
    return f"{option} {os.path.join(folder, path.strip())}" if option in ("-r", "-c") else line


def _with_uv(recipe: EnvironmentSpec, folder: str) -> tuple[list[str], list[str]]:
    if importlib.util.find_spec("uv") is None:
        raise EnvironmentBuildError(
            recipe.model, "uv is not installed: pip install 'mlserver-mlflow[uv]'"
        )
    uv = [sys.executable, "-P", "-m", "uv"]
    python = sys.executable if recipe.python == _own_version() else recipe.python
    install = [*uv, "pip", "install", "--python", os.path.join(folder, "bin", "python")]
    return [*uv, "venv", "--no-project", "--python", python, folder], install


def _with_pip(recipe: EnvironmentSpec, folder: str) -> tuple[list[str], list[str]]:
    python = (
        sys.executable
        if recipe.python == _own_version()
        else shutil.which(f"python{recipe.python}")
    )
    if python is None:
        raise EnvironmentBuildError(
            recipe.model,
            f"there is no python{recipe.python} on this machine (env_manager 'uv' gets one)",
        )
    # -P: the installers run in the model's folder, and what lies there is no part of them.
    # What is never imported need not be compiled; that would take longer than all the rest.
    install = [os.path.join(folder, "bin", "python"), "-P", "-m", "pip", "install", "--no-compile"]
    return [python, "-P", "-m", "venv", folder], install


def _run(recipe: EnvironmentSpec, command: Sequence[str]) -> None:
    """Run an installer to its end, its words in the log."""
    said: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=recipe.folder,
        env=_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with _stoppable(process):
        assert process.stdout is not None
        with process.stdout as lines:
            for line in map(str.strip, lines):
                if line:
                    said.append(line)
                    logger.info("Environment of model '%s': %s", recipe.model, line)
        code = process.wait()
    if code:
        raise EnvironmentBuildError(
            recipe.model, " ".join(said)[-REASON:] or f"the installer ended with {code}"
        )


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONHOME", "VIRTUAL_ENV")
    }


@contextmanager
def _stoppable(process: subprocess.Popen[Any]) -> Iterator[None]:
    """A process that ends with the server."""
    with _lock:
        _running.add(process)
    try:
        yield
    finally:
        with _lock:
            _running.discard(process)


def _link_runtime(folder: str) -> None:
    """Make the server's MLflow runtime importable, whichever Python the environment has."""
    spec = importlib.util.find_spec(RUNTIME)
    if spec is None or not spec.submodule_search_locations:
        return
    library = os.path.join(folder, "lib")
    for python in os.listdir(library):
        link = os.path.join(library, python, "site-packages", RUNTIME)
        if os.path.isdir(os.path.dirname(link)) and not os.path.lexists(link):
            os.symlink(spec.submodule_search_locations[0], link)


def stop() -> None:
    """End the installers that run: the server stops."""
    with _lock:
        for process in _running:
            process.kill()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
