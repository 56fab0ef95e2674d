"""MLflow models that ship code.

Each returns `[N, N, N]`, by a module, a late import, and a pickle.
All use the same module names (`prep`, `team`, `team.late`), whatever N is.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow

from support.repository import write_settings

RUNTIME = "mlserver_mlflow.MLflowRuntime"

PREP = "def value():\n    return {number}\n"
STEPS = "class Step:\n    def value(self):\n        return {number}\n"

PREDICT = """
def predict(self, context, model_input, params=None):
    from team.late import value as late  # with the first request only
    return [value(), late(), self.step.value()]
"""

SCRIPT = f"""
import pickle
import mlflow
from prep import value

class Answers(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["step"], "rb") as file:
            self.step = pickle.load(file)
{textwrap.indent(PREDICT, "    ")}
mlflow.models.set_model(Answers())
"""

LOADER = f"""
import pickle
from prep import value

class Answers:
{textwrap.indent(PREDICT.replace("context, ", ""), "    ")}
def _load_pyfunc(path):
    answers = Answers()
    with open(path, "rb") as file:
        answers.step = pickle.load(file)
    return answers
"""


def write_sources(folder: Path, number: int) -> Path:
    """Write the modules of a model that returns a number."""
    (folder / "team").mkdir(parents=True, exist_ok=True)
    (folder / "prep.py").write_text(PREP.format(number=number))
    (folder / "team" / "__init__.py").touch()
    (folder / "team" / "late.py").write_text(PREP.format(number=number))
    (folder / "team" / "steps.py").write_text(STEPS.format(number=number))
    (folder / "team_loader.py").write_text(LOADER)
    return folder


def change_code(model: Path, number: int) -> None:
    """Replace the code in a model's folder.

    File sizes do not change for numbers of the same length.
    """
    write_sources(model / "code", number)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make a folder importable; afterwards its modules are removed from `sys.modules`."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


@contextmanager
def model_options(
    folder: Path, number: int, kind: str = "loader", extra: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Options of `mlflow.pyfunc.save_model` and `log_model` for a model that ships code.

    Args:
        folder: The sources are left beside it.
        number: What it answers.
        kind: `loader` (a `loader_module` among its code) or `script` (a model from code).
        extra: Further modules of its code, name -> text.
    """
    sources = write_sources(folder.parent / f"sources-of-{folder.name}", number)
    for name, text in (extra or {}).items():
        (sources / name).write_text(text)
    code_paths = [str(path) for path in sources.iterdir() if path.name != "__pycache__"]
    with importable(sources):
        step = folder.parent / f"step-of-{folder.name}.pkl"
        step.write_bytes(pickle.dumps(importlib.import_module("team.steps").Step()))
        options: dict[str, Any] = {"code_paths": code_paths, "pip_requirements": ["mlflow"]}
        if kind == "loader":
            yield {**options, "loader_module": "team_loader", "data_path": str(step)}
        else:
            script = folder.parent / f"script-of-{folder.name}.py"
            script.write_text(SCRIPT)
            yield {**options, "python_model": str(script), "artifacts": {"step": str(step)}}


def save_model(
    folder: Path, number: int, kind: str = "loader", extra: dict[str, str] | None = None
) -> Path:
    """Save a model into a folder; see `model_options`."""
    with model_options(folder, number, kind, extra) as options:
        mlflow.pyfunc.save_model(folder, **options)
    return folder


def save_plain(folder: Path, body: str) -> Path:
    """Save a model from code that ships no module; `body` is that of its `predict`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = folder.parent / f"script-of-{folder.name}.py"
    lines = [
        "import mlflow",
        "class Plain(mlflow.pyfunc.PythonModel):",
        "    def predict(self, context, model_input, params=None):",
        textwrap.indent(body, " " * 8),
        "mlflow.models.set_model(Plain())",
    ]
    script.write_text("\n".join(lines))
    mlflow.pyfunc.save_model(folder, python_model=str(script), pip_requirements=[])
    return folder


def serve_model(
    folder: Path, uri: Path | str, name: str, version: str | None = None, **more: object
) -> None:
    """Write the settings of a model into a folder of a repository."""
    parameters = {"uri": str(uri)} | dict(more.pop("parameters", {}))  # type: ignore[call-overload]
    about = {
        "name": name,
        "implementation": RUNTIME,
        "parameters": {**parameters, "version": version},
    }
    write_settings(folder, **about | more)
