"""New virtual environments that install this repository's distributions from wheels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .pages import ROOT
from .server import clean_environment

PROJECTS = (ROOT, ROOT / "runtimes" / "mlflow")
_NETWORK = re.compile(
    r"Could not find a version that satisfies|connection|timed out|NameResolution", re.IGNORECASE
)


class NoPackageIndex(Exception):
    """The package index cannot be reached."""


def build_wheels(target: Path) -> None:
    """Build the wheels of both projects. Raises `NoPackageIndex`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(target)]
    for project in PROJECTS:
        _run([*command, str(project)])


def create(folder: Path, wheels: Path) -> tuple[Path, dict[str, str]]:
    """Create an environment in `folder`.

    Returns:
        Its interpreter, and variables with which pip in it installs this repository's distributions
        from `wheels` and everything else from the package index.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lines = []
    for wheel in wheels.glob("mlserver*.whl"):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name.replace('_', '-')}=={version}\n")
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(lines))
    links = " ".join([str(wheels), *os.environ.get("PIP_FIND_LINKS", "").split()])
    variables = {
        "PIP_CONSTRAINT": str(constraints),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": links,
        "PIP_QUIET": "1",
    }
    return folder / "bin" / "python", variables


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode and _NETWORK.search(done.stderr):
        raise NoPackageIndex(done.stderr[-500:])
    if done.returncode:
        raise AssertionError(done.stderr[-3000:])
