"""MLflow models for the tests, built once per machine: one folder per builder and content, in
`.models` (ignored by git).

The folder's name has a hash of what determines the models: the builder's source, the versions of
the libraries that save them, the interpreter and the training data. The processes of pytest-xdist
share one build, by a file lock. `make clean` deletes the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
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


def build_once(name: str, sources: Sequence[Path | str], build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` has filled, now or in an earlier run; tests only read it.

    Args:
        name: First part of the folder's name.
        sources: What determines the models: files (the builder, its data) and texts.
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


def content_key(sources: Sequence[Path | str]) -> str:
    """Hash of the sources' content and of the installed versions."""
    digest = hashlib.sha256(sys.version.encode())
    for library in LIBRARIES:
        digest.update(f"{library} {installed_version(library)}\n".encode())
    for source in sources:
        digest.update(source.encode() if isinstance(source, str) else source.read_bytes())
    return digest.hexdigest()[:12]


def installed_version(library: str) -> str | None:
    """The version of a library, or None if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def build_by_script(name: str, script: str) -> Path:
    """Return the folder that a Python script has filled, now or in an earlier run.

    The script gets the folder as its argument, and may import `support.models`. Its process, not
    the test's, imports MLflow.
    """
    sources: Sequence[Path | str] = [script, TESTS / "support" / "models.py"]
    return build_once(name, sources, lambda folder: run_python(folder, "-c", script, str(folder)))


def run_builder(module: str, folder: Path, *arguments: str) -> None:
    """Run `python -m MODULE FOLDER ARGUMENTS...`."""
    run_python(folder, "-m", module, str(folder), *arguments)


def run_python(folder: Path, *arguments: str) -> None:
    """Run `python ARGUMENTS...` in a folder; it can import the tests' packages.

    Raises:
        AssertionError: it failed; the text is its output.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    completed = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
