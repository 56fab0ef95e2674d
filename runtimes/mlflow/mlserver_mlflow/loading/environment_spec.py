"""What a model's environment is built from: its files, fetched if need be, and the requirements and the code in them.

The server runs this as a process of its own (`python -m mlserver_mlflow.loading.environment_spec`) before it builds, for it imports neither
MLflow nor a YAML library itself. In: the model's settings as a frame. Out: one JSON object, an answer or an `error`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import sys
from typing import Any

from mlserver.errors import MLServerError
from mlserver.settings import ModelSettings

from . import code_files, sources

_VERSION = re.compile(r"(\d+)\.(\d+)")


def read(settings: ModelSettings) -> dict[str, Any]:
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
    """Python version (`major.minor`; None = not said) and requirements, from the first file that has them.

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


def main() -> None:
    # Whatever else is printed here, by libraries that fetch, is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = ModelSettings.from_frame(sys.stdin.buffer.read())
    try:
        answer = read(settings)
    except MLServerError as error:
        answer = {"error": error.message, "status": error.status_code}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
