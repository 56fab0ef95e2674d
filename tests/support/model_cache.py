"""MLflow models for the tests, built once per machine: one folder per builder and content, in
`.models` (ignored by git).

The folder's name has a hash of what determines the models: the builder's source, the versions of
the
libraries that save them, the interpreter and the training data. A file lock lets the processes of
pytest-xdist share one build. `make clean` deletes the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CACHE = TESTS.parent / ".models"
LIBRARIES = (
    "mlflow",
    "mlflow-skinny",
    "scikit-learn",
    "numpy",
    "pandas",
    "cloudpickle",
    "lightgbm",
)


def build_once(name: str, sources: list[Path], build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` has filled, now or in an earlier run; tests only read it.

    Args:
        name: First part of the folder's name.
        sources: Files that determine the models: the builder and its data.
        build: Writes the models into an empty folder. If it raises, the next call builds again.
    """
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / f"{name}-{content_key(sources)}"
    complete = folder / ".complete"
    if complete.exists():
        return folder
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            complete.touch()
    return folder


def content_key(sources: list[Path]) -> str:
    """Hash of the sources' content and of the installed versions."""
    digest = hashlib.sha256(sys.version.encode())
    for library in LIBRARIES:
        digest.update(f"{library} {installed_version(library)}\n".encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def installed_version(library: str) -> str | None:
    """The version of a library, or None if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def run_builder(module: str, folder: Path, *arguments: str) -> None:
    """Run `python -m MODULE FOLDER ARGUMENTS...`.

    Raises:
        AssertionError: the builder failed; the text is its output.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    completed = subprocess.run(
        [sys.executable, "-m", module, str(folder), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
