"""Runs the quick start and the differential tests with several versions of MLflow, Python, NumPy
and pandas.

`python -m matrix.run [NAME ...]`: the cells of these names, `short`, `quick` (the quick start
alone, for three versions of MLflow on three of Python), or all but the floors. A cell that needs
something this machine lacks is skipped, with the reason. Exit code 1: a cell failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from .environments import ROOT, Environment, InstallFailed, NotAvailable

QUICK_START = (
    "tests/integration/test_quickstart.py",
    "tests/integration/test_front_ends.py",
    "tests/unit/codecs/test_hints.py",
)
TESTS = (
    *QUICK_START,
    "tests/unit/mlflow/invocations/test_scoring.py",
    "tests/processes/test_forked_flavors.py",
)
FLOOR_TESTS = (
    *TESTS,
    "tests/integration/test_infer.py",
    "tests/integration/test_infer_files.py",
    "tests/integration/test_model_routes.py",
    "tests/unit/codecs",
    # pandas 2.1 cannot construct all of its frames
    "--deselect=tests/unit/codecs/test_pandas.py::test_any_frame_round_trip",
    "tests/unit/grpc",
)
# MLflow's scoring server before 3.11, which the differential tests call, needs this.
OLD_STARLETTE = "starlette<1"
LOWEST_ARRAYS = ("numpy==1.26.*", "pandas==2.1.*")
FLOORS = Environment(
    "floors",
    "3.11",
    ("scikit-learn>=1.3.2", "setuptools>=70,<82"),
    (".[all]", "./runtimes/mlflow[full]"),
    lowest=True,
)
MATRIX = (
    Environment("mlflow-2.16", "3.11", ("mlflow==2.16.*", *LOWEST_ARRAYS)),
    Environment("mlflow-2.22", "3.11", ("mlflow==2.22.*", OLD_STARLETTE)),
    Environment("mlflow-3.1", "3.12", ("mlflow==3.1.*", OLD_STARLETTE)),
    Environment("mlflow-3.9", "3.13", ("mlflow==3.9.*", OLD_STARLETTE)),
    Environment("mlflow-3.12", "3.12", ("mlflow==3.12.*", *LOWEST_ARRAYS)),
    Environment("newest-3.11", "3.11", ("mlflow",)),
    Environment("newest-3.12", "3.12", ("mlflow", "numpy>=2.4")),
    Environment("newest-3.13", "3.13", ("mlflow", "numpy>=2.4")),
)
SHORT = ("mlflow-2.22", "newest-3.13")
QUICK_MLFLOW = {
    "2.22": ("mlflow==2.22.*", OLD_STARLETTE),
    "3.12": ("mlflow==3.12.*",),
    "newest": ("mlflow",),
}
QUICK = tuple(
    Environment(f"quick-{mlflow}-{python}", python, requirements)
    for mlflow, requirements in QUICK_MLFLOW.items()
    for python in ("3.11", "3.12", "3.13")
)
SHOWN = ("mlflow", "numpy", "pandas", "pydantic", "protobuf", "starlette")


def main(names: Sequence[str]) -> int:
    known = {cell.name: cell for cell in (*MATRIX, *QUICK, FLOORS)}
    if list(names) == ["short"]:
        names = SHORT
    elif list(names) == ["quick"]:
        names = [cell.name for cell in QUICK]
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: short, quick, {', '.join(known)}")
    cells = [known[name] for name in names] or MATRIX
    outcomes = {cell.name: run(cell) for cell in cells}
    for name, outcome in outcomes.items():
        say(f"{name:12} {outcome}")
    return int(any("FAILED" in outcome for outcome in outcomes.values()))


def run(cell: Environment) -> str:
    """Run one cell. Returns its outcome in one line: passed, FAILED, or skipped with the reason."""
    start = time.monotonic()
    say(f"--- {cell.name}: Python {cell.python}, {' '.join(cell.requirements)}")
    try:
        cell.install()
    except NotAvailable as error:
        return f"skipped: {error}"
    except InstallFailed as error:
        say(str(error))
        return "FAILED: the requirements cannot be installed together"
    installed = time.monotonic() - start
    say(f"    {cell.versions(*SHOWN)} (installed in {installed:.0f} s)")
    tests: Sequence[str] = FLOOR_TESTS if cell.lowest else TESTS
    if cell in QUICK:
        tests = QUICK_START
    # Each cell has other versions of the libraries, with other warnings.
    options = [
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=ignore",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(cell.interpreter), "-m", "pytest", *options, *tests]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    outcome = "passed" if code == 0 else f"FAILED with code {code}"
    return f"{outcome} in {time.monotonic() - start:.0f} s, {installed:.0f} s of them to install"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
