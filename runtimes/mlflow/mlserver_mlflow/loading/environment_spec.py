"""Specification of a model's environment: its folder, Python version, requirements and code.

Runs in a subprocess (`mlserver.env.read_files`), because it imports a YAML library and, to download
a model, MLflow.
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
_REQUIREMENT_FILES = "python_env.yaml, requirements.txt or conda.yaml with pip packages"


def read_spec(settings: ModelSettings) -> EnvironmentFiles:
    """Return `folder`, `source`, `python`, `lines` (requirements) and `code` of a model.

    Raises:
        MLServerError: the model is not found, cannot be downloaded or has no requirements.
    """
    source = asyncio.run(sources.resolve(settings))
    folder = os.path.abspath(source.folder)
    python, lines = read_requirements(settings.name, folder)
    code = code_files.find_code(settings.name, folder)
    return {
        "folder": folder,
        "source": source.address,
        "python": python,
        "lines": lines,
        "code": code,
    }


def read_requirements(name: str, folder: str) -> tuple[str | None, list[str]]:
    """Return the Python version (`major.minor` or None) and the lines of a requirements file.

    The first of `_REQUIREMENT_FILES` that has requirements counts.

    Raises:
        MLServerError: no file has requirements.
    """
    python_env = _read_yaml(name, os.path.join(folder, "python_env.yaml"))
    conda = _read_yaml(name, os.path.join(folder, "conda.yaml"))
    conda_dependencies = conda.get("dependencies") or []
    version = _read_python_version(python_env, conda_dependencies)
    if python_env.get("dependencies"):
        return version, [str(line) for line in python_env["dependencies"]]
    if os.path.isfile(os.path.join(folder, "requirements.txt")):
        return version, ["-r requirements.txt"]
    lines: list[str] = []
    for dependency in conda_dependencies:
        if isinstance(dependency, dict):
            lines += map(str, dependency.get("pip") or [])
    if not lines:
        raise _build_error(name, f"its folder has no {_REQUIREMENT_FILES}")
    return version, lines


def _read_python_version(python_env: dict[str, Any], conda_dependencies: list[Any]) -> str | None:
    python = str(python_env.get("python") or "")
    if not python:
        lines = [line for line in conda_dependencies if isinstance(line, str)]
        python = next((line for line in lines if line.startswith("python")), "")
    match = _VERSION.search(python)
    return f"{match[1]}.{match[2]}" if match else None


def _read_yaml(name: str, path: str) -> dict[str, Any]:
    """Return a YAML file's mapping; {} if the file is missing or holds something else."""
    if not os.path.isfile(path):
        return {}
    yaml: Any = importlib.import_module("yaml")
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _build_error(name, f"{os.path.basename(path)} is not valid YAML: {error}") from None
    return document if isinstance(document, dict) else {}


def _build_error(name: str, reason: str) -> MLServerError:
    return MLServerError(f"The environment of model {name} cannot be built: {reason}", 500)
