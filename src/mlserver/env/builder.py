"""Builds a Python environment from the requirements in a model's files, with uv or pip.

`parameters.extra.env_manager` selects the manager: `local` (the server's own environment, the
default), `uv` or `virtualenv`. Built environments are stored in `environments_dir` under the hash
of their inputs and shared by all models with equal inputs.
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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..runtime_hooks import NO_HOOKS, EnvironmentFiles, find_hooks
from ..security import code_policy
from ..settings import ModelSettings
from .build_limit import NO_LIMIT, BuildLimit

logger = get_logger()

LOCAL, MANAGERS = "local", ("local", "uv", "virtualenv")
# What a worker imports itself; the runtime adds its own (`RuntimeHooks.worker_requirements`). Wide
# ranges, so that a model's own pins win. `make test-floors` runs a worker with the lowest versions.
WORKER_REQUIREMENTS = (
    "pydantic>=2.7,<3",
    "pydantic-settings>=2.3,<3",
    "orjson>=3.9",
    "msgspec>=0.18.5",
    "numpy>=1.23.5",
    "uvloop>=0.19; sys_platform != 'win32'",
)
# Characters of the installer's output that an error quotes: uv and pip print the reason last.
MAX_REASON_LENGTH = 600


class EnvironmentBuildError(MLServerError):
    """Building a model's environment failed; the message ends with the installer's last output."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The environment of model {name} cannot be built: {reason}", 500)


@dataclass(frozen=True)
class EnvironmentSpec:
    """All inputs of an environment.

    Attributes:
        model: The model's name, for messages.
        python: `major.minor`.
        lines: Lines of a requirements file: the model's, the runtime's and the worker's.
        folder: The model's folder, which requirements and constraints may refer to.
        source: Address of the model with the version whose files were read; None = a folder on this
            machine.
        package: Import package of the runtime, linked into the environment.
    """

    model: str
    manager: str
    python: str
    lines: tuple[str, ...]
    folder: str
    source: str | None
    package: str

    @property
    def key(self) -> str:
        """SHA-256 of all inputs."""
        paths = [
            os.path.join(self.folder, name) for name in ("requirements.txt", "constraints.txt")
        ]
        contents = [_read_text(path) for path in paths]
        parts = [self.manager, self.python, self.lines, contents, sys.version, platform.machine()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_environment_spec(
    settings: ModelSettings, limit: BuildLimit = NO_LIMIT
) -> EnvironmentSpec | None:
    """Return what to build for a model, None if it runs in the server's own environment.

    Blocks: the model may have to be fetched.

    Raises:
        MLServerError: the manager is unknown, the model cannot be fetched, or it declares no
            requirements.
        CodeNotAllowed: installing runs code, and the settings do not trust this model.
    """
    parameters = settings.parameters
    manager = parameters.extra.get("env_manager", LOCAL) if parameters else LOCAL
    if manager not in MANAGERS:
        expected = ", ".join(MANAGERS)
        raise EnvironmentBuildError(
            settings.name, f"'env_manager': expected one of {expected}, received '{manager}'"
        )
    if manager == LOCAL:
        return None
    hooks = find_hooks(settings.implementation_)
    if hooks is NO_HOOKS:
        raise EnvironmentBuildError(
            settings.name,
            f"'env_manager': the runtime '{settings.implementation_}' is not installed or does not"
            " support it",
        )
    files = _read_files(settings, limit)
    # Installers run code of the packages that they install.
    code = [*files["code"], f"requirements that '{manager}' installs"]
    code_policy.current_policy().check_files(settings.name, files["folder"], code)
    return EnvironmentSpec(
        settings.name,
        manager,
        files["python"] or _own_version(),
        (*files["lines"], *hooks.worker_requirements, *WORKER_REQUIREMENTS),
        files["folder"],
        files["source"],
        hooks.package,
    )


def _read_files(settings: ModelSettings, limit: BuildLimit) -> EnvironmentFiles:
    """Run `read_files`, which may import libraries that the server's process must not."""
    logger.info("Model '%s': reading its requirements, fetching it first if needed", settings.name)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlserver.env.read_files"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_installer_variables(),
        process_group=0,
    )
    with limit.watch(process):
        output, _ = process.communicate(settings.to_frame())
    if process.returncode:
        raise EnvironmentBuildError(
            settings.name,
            f"reading its files failed with exit code {process.returncode}; see the log",
        )
    result: Any = json.loads(output)
    if "error" in result:
        raise MLServerError(result["error"], result["status"])
    files: EnvironmentFiles = result
    return files


def _own_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def build(spec: EnvironmentSpec, folder: str, limit: BuildLimit = NO_LIMIT) -> None:
    """Create the environment in `folder`, replacing what exists. Blocks.

    Raises:
        EnvironmentBuildError: an installer failed.
        MLServerError: `limit` has ended the build.
    """
    limit.check()
    shutil.rmtree(folder, ignore_errors=True)
    logger.info(
        "Building the environment of model '%s' with %s: %s", spec.model, spec.manager, folder
    )
    get_commands = _uv_commands if spec.manager == "uv" else _pip_commands
    create, install = get_commands(spec, folder)
    try:
        _run(spec, create, limit)
        requirements = os.path.join(folder, "requirements-of-model.txt")
        with open(requirements, "w", encoding="utf-8") as file:
            # Relative paths refer to the model's folder, and this file is stored elsewhere.
            file.writelines(f"{_make_absolute(line, spec.folder)}\n" for line in spec.lines)
        _run(spec, [*install, "-r", requirements], limit)
        _link_runtime(spec.package, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    logger.info("Built the environment of model '%s'", spec.model)


def _make_absolute(line: str, folder: str) -> str:
    option, _, path = line.partition(" ")
    return f"{option} {os.path.join(folder, path.strip())}" if option in ("-r", "-c") else line


def _uv_commands(spec: EnvironmentSpec, folder: str) -> tuple[list[str], list[str]]:
    """Return the commands that create the environment and that install into it."""
    if importlib.util.find_spec("uv") is None:
        raise EnvironmentBuildError(spec.model, "uv is not installed: pip install uv")
    uv = [sys.executable, "-P", "-m", "uv"]
    python = sys.executable if spec.python == _own_version() else spec.python
    install = [*uv, "pip", "install", "--python", os.path.join(folder, "bin", "python")]
    return [*uv, "venv", "--no-project", "--python", python, folder], install


def _pip_commands(spec: EnvironmentSpec, folder: str) -> tuple[list[str], list[str]]:
    """Return the commands that create the environment and that install into it."""
    is_own_version = spec.python == _own_version()
    python = sys.executable if is_own_version else shutil.which(f"python{spec.python}")
    if python is None:
        raise EnvironmentBuildError(
            spec.model,
            f"python{spec.python} is not installed on this machine (env_manager 'uv' downloads it)",
        )
    # -P: installers run in the model's folder and must not import its files.
    # --no-compile: compiling files that are never imported takes longer than all other steps
    # together.
    install = [os.path.join(folder, "bin", "python"), "-P", "-m", "pip", "install", "--no-compile"]
    return [python, "-P", "-m", "venv", folder], install


def _run(spec: EnvironmentSpec, command: Sequence[str], limit: BuildLimit) -> None:
    """Run an installer to its end and log its output."""
    output: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=spec.folder,
        env=_installer_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    with limit.watch(process):
        assert process.stdout is not None
        with process.stdout as lines:
            for line in map(str.strip, lines):
                if line:
                    output.append(line)
                    logger.info("Environment of model '%s': %s", spec.model, line)
        code = process.wait()
    if code:
        reason = " ".join(output)[-MAX_REASON_LENGTH:]
        raise EnvironmentBuildError(spec.model, reason or f"the installer exited with {code}")


def _installer_variables() -> dict[str, str]:
    """Return this process's environment variables without those that select another Python."""
    removed = ("PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in removed}


def _link_runtime(package: str, folder: str) -> None:
    """Make the server's copy of the runtime importable in the environment."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return
    library = os.path.join(folder, "lib")
    for python in os.listdir(library):
        link = os.path.join(library, python, "site-packages", package)
        if os.path.isdir(os.path.dirname(link)) and not os.path.lexists(link):
            os.symlink(spec.submodule_search_locations[0], link)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
