"""MLflow's warnings about a model's requirements, without its scan of all installed packages.

At each load MLflow compares `requirements.txt` and the Python version with the running environment.
Its first comparison maps the modules of every installed package: 0.5 s of processor time in an
environment of 180 (`python -m benchmarks.load_steps`). Here the versions are compared
first. Only a list with a mismatch is passed to MLflow's own function, which writes the warning: in
a thread, after the loads; before the error if the load fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlflow import pyfunc
from mlflow.version import VERSION
from packaging.requirements import InvalidRequirement, Requirement

from . import mlmodel_text

# Seconds without a load after which the warnings are written.
QUIET_SECONDS = 1.0
_PYTHON_VERSION = mlmodel_text.compile_entry("python_version")
# MLflow compares the version of this package by rules of its own.
_PYSPARK = "pyspark"

# The functions that `load_model` calls, in MLflow 2.15 to 3.17.
_read_requirements: Any = getattr(pyfunc, "_get_pip_requirements_from_model_path", None)
_warn_of_mismatches: Any = getattr(pyfunc, "warn_dependency_requirement_mismatches", None)
_warn_of_python: Any = getattr(
    pyfunc, "_warn_potentially_incompatible_py_version_if_necessary", None
)
IS_SUPPORTED = None not in (_read_requirements, _warn_of_mismatches, _warn_of_python)


@contextmanager
def replace_check(folder: str) -> Iterator[None]:
    """Write the warnings about the model in a folder, which the block loads without warnings."""
    python = mlmodel_text.find_values(_PYTHON_VERSION, mlmodel_text.read_text(folder))
    _warn_of_python(python[0] if python else None)
    requirements = _read_requirements(folder)
    has_mismatch = not all(map(is_satisfied, requirements))
    try:
        yield
    except BaseException:
        if has_mismatch:
            _warn_of_mismatches(requirements)
        raise
    if has_mismatch:
        _later.add(requirements)


def is_satisfied(line: str) -> bool:
    """Whether MLflow would report nothing for a requirement; False if that is not certain."""
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return True  # a path or a URL, which MLflow skips
    if requirement.marker and not requirement.marker.evaluate():
        return True
    if requirement.name == _PYSPARK or requirement.extras:
        return False
    try:
        installed = VERSION if requirement.name == "mlflow" else version(requirement.name)
    except PackageNotFoundError:
        return False
    return not requirement.specifier or requirement.specifier.contains(installed)


class DeferredWarnings:
    """Lists of requirements, passed to MLflow's function in a thread once the loads have ended."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._quiet_seconds = quiet_seconds
        self._waiting: list[list[str]] = []
        self._last_added = 0.0
        self._lock = threading.Lock()

    def add(self, requirements: list[str]) -> None:
        """Write the warning for a list later."""
        with self._lock:
            self._last_added = time.monotonic()
            self._waiting.append(requirements)
            if len(self._waiting) == 1:
                threading.Thread(target=self._run, name="requirements", daemon=True).start()

    def _run(self) -> None:
        while (pause := self._last_added + self._quiet_seconds - time.monotonic()) > 0:
            time.sleep(pause)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for requirements in waiting:
            _warn_of_mismatches(requirements)


_later = DeferredWarnings()
