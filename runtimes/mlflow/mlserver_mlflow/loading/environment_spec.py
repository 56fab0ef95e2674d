"""Reads Python version, requirements and code parts from the files of an MLflow model.

Runs in a process of its own (`mlserver.env.read_files`), because it imports a YAML library and, to
fetch a model, MLflow.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from typing import Any

from mlserver.errors import MLServerError
from mlserver.runtime_hooks import EnvironmentFiles
from mlserver.settings import ModelSettings

from . import code_files, sources

_VERSION = re.compile(r"(\d+)\.(\d+)")


def read(settings: ModelSettings) -> EnvironmentFiles:
    """Folder, source, Python version, requirement lines, and which parts of the model are code.

    Raises:
        MLServerError: the model cannot be found or fetched, or says nothing of its requirements.
    """
    source = asyncio.run(sources.resolve(settings))
    folder = os.path.abspath(source.folder)
    python, lines = requirements_of(settings.name, folder)
    code = code_files.code_in(settings.name, folder)
    return {
        "folder": folder,
        "source": source.address,
        "python": python,
        "lines": lines,
        "code": code,
    }


def requirements_of(name: str, folder: str) -> tuple[str | None, list[str]]:
    """Return Python version (`major.minor` or None) and requirements from the first file with them.

    Raises:
        MLServerError: there is none.
    """
    described = _yaml(name, os.path.join(folder, "python_env.yaml"))
    conda = _yaml(name, os.path.join(folder, "conda.yaml"))
    parts = conda.get("dependencies") or []
    listed = [part for part in parts if isinstance(part, str)]
    python = str(
        described.get("python") or next((part for part in listed if part.startswith("python")), "")
    )
    found = _VERSION.search(python)
    version = f"{found[1]}.{found[2]}" if found else None
    if described.get("dependencies"):
        return version, [str(line) for line in described["dependencies"]]
    if os.path.isfile(os.path.join(folder, "requirements.txt")):
        return version, ["-r requirements.txt"]
    packages = [
        str(line) for part in parts if isinstance(part, dict) for line in part.get("pip") or []
    ]
    if not packages:
        wanted = "python_env.yaml, requirements.txt or conda.yaml with pip packages"
        raise MLServerError(
            f"The environment of model {name} cannot be built: its folder has no {wanted}", 500
        )
    return version, packages


def _yaml(name: str, path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    yaml: Any = importlib.import_module("yaml")
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = f"{os.path.basename(path)} is no YAML: {error}"
        raise MLServerError(
            f"The environment of model {name} cannot be built: {what}", 500
        ) from None
    return found if isinstance(found, dict) else {}
