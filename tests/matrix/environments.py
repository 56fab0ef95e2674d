"""Environments of the test matrix, created by uv under `.venvs`, one per hash of their content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venvs"
PROJECTS = (ROOT / "pyproject.toml", ROOT / "runtimes" / "mlflow" / "pyproject.toml")
TOOLS = (
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "httpx",
    "hypothesis",
    "cryptography",
    "packaging",
)
INSTALL_LIMIT = 1200.0
# uv's messages of network errors.
_NETWORK = re.compile(
    r"error sending request|dns error|Failed to fetch|timed out|connect|No route to host",
    re.IGNORECASE,
)
_LOCATION = "import sys; print(sys.executable)"


class NotAvailable(Exception):
    """This machine lacks an interpreter, or a reachable package index."""


class InstallFailed(Exception):
    """The requirements conflict; the text is uv's."""


@dataclass(frozen=True)
class Environment:
    """One cell of the matrix.

    `.venvs/matrix-NAME`, with a Python `major.minor` and requirements.
    `own` lists this repository's projects to install; with `lowest`, the lowest versions that
    `pyproject.toml` allows are installed.
    """

    name: str
    python: str
    requirements: tuple[str, ...] = ()
    own: tuple[str, ...] = (".", "./runtimes/mlflow[full]")
    lowest: bool = False

    @property
    def folder(self) -> Path:
        return FOLDER / f"matrix-{self.name}"

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self) -> None:
        """Create the environment, unless it exists with the same content.

        Raises `NotAvailable` without such a Python or a package index, and `InstallFailed` if the
        requirements conflict.
        """
        python = find_python(self.python)
        files = [path.read_text() for path in PROJECTS]
        content = json.dumps([python, self.requirements, self.own, self.lowest, TOOLS, files])
        state = hashlib.sha256(content.encode()).hexdigest()
        stamp = self.folder / ".installed"
        if stamp.exists() and stamp.read_text() == state:
            return
        _uv("venv", "--quiet", "--clear", "--python", python, str(self.folder))
        resolution = "lowest-direct" if self.lowest else "highest"
        own = [argument for project in self.own for argument in ("--editable", project)]
        self._pip("install", "--quiet", "--resolution", resolution, *own, *self.requirements)
        # Installed after the requirements, so that the tools do not influence their versions.
        installed = self.folder / "installed.txt"
        installed.write_text(self._pip("freeze", "--exclude-editable"))
        self._pip("install", "--quiet", "--constraints", str(installed), *TOOLS)
        stamp.write_text(state)

    def versions(self, *packages: str) -> str:
        """`name version` of the packages that are installed, in one line."""
        listed = json.loads(self._pip("list", "--format", "json"))
        versions = {entry["name"]: entry["version"] for entry in listed}
        return ", ".join(
            f"{package} {versions[package]}" for package in packages if package in versions
        )

    def _pip(self, command: str, *arguments: str) -> str:
        return _uv("pip", command, "--python", str(self.interpreter), *arguments)


def find_python(version: str) -> str:
    """The path of an interpreter, found by the name `pythonX.Y`. Raises `NotAvailable`."""
    name = f"python{version}"
    candidates: list[dict[str, str]] = [{}]
    if shutil.which("pyenv"):
        # pyenv's shims run only the versions that PYENV_VERSION selects.
        listed = subprocess.run(
            ["pyenv", "whence", name], capture_output=True, text=True, check=False
        )
        candidates += [{"PYENV_VERSION": known} for known in reversed(listed.stdout.split())]
    for variables in candidates if shutil.which(name) else []:
        environment = {**os.environ, **variables}
        completed = subprocess.run(
            [name, "-c", _LOCATION], env=environment, capture_output=True, text=True, check=False
        )
        if completed.returncode == 0:
            return completed.stdout.strip()
    raise NotAvailable(f"there is no {name}")


def _uv(*arguments: str) -> str:
    command = [sys.executable, "-m", "uv", *arguments]
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    environment = {**kept, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    text = done.stderr.strip()
    if _NETWORK.search(text):
        raise NotAvailable(f"the package index cannot be reached: {text[-200:]}")
    raise InstallFailed(text)
