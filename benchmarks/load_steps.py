"""Command `python -m benchmarks.load_steps`: processor time and memory of steps of a model's load.

Each step runs in a new interpreter, before and after a change, in turn: medians of five. Two of
them use the models and libraries of `benchmarks.cold_start`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

from . import environments, servers, wine
from .cold_start import train
from .run import WORK

ROUNDS = 5
MEASURED = """
import json, resource, time, warnings
warnings.simplefilter("ignore")
{preparation}
started = time.process_time()
{step}
used = time.process_time() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([used, peak]))
"""
SKOPS = "import mlserver_mlflow.loading.skops_import"
MLFLOW = "import mlflow.pyfunc; from mlflow.pyfunc import scoring_server"
LOAD = """
from mlserver_mlflow.loading import pyfunc, requirements_check
{change}
pyfunc.load_model({folder!r})
"""
MANY = """
import asyncio
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.settings import ModelSettings
runner = ModelRunner()
settings = ModelSettings(name="m", implementation="mlserver_mlflow.MLflowRuntime",
    parameters={{"uri": {folder!r}}})
asyncio.run(runner.load("first", settings))
"""
PYTHON_YAML = "import yaml, mlflow.models.model as model; model.yaml = yaml"
LOAD_100 = 'for number in range(100): asyncio.run(runner.load(f"m#{number}", settings))'


@dataclass(frozen=True)
class Step:
    """A step without and with a change; `library` = folder on the search path."""

    title: str
    before: str
    after: str
    preparation: str = ""
    library: str | None = None


def main() -> None:
    WORK.mkdir(exist_ok=True)
    table = WORK / "wine.csv"
    wine.write_table(table)
    folder = str(train("sklearn-skops", table).folder)
    scan = LOAD.format(folder=folder, change="requirements_check.IS_SUPPORTED = False")
    compare = LOAD.format(folder=folder, change="")
    order = (f"{MLFLOW}; import skops.io", f"{SKOPS}; {MLFLOW}")
    many = MANY.format(folder=folder)
    steps = [
        Step("skops before MLflow", *order),
        Step("skops without PyTorch, which is installed", *order, library="pytorch"),
        Step("requirements without a scan", scan, compare, f"{SKOPS}; import mlflow.sklearn"),
        Step("100 further models, YAML in C", f"{PYTHON_YAML}\n{LOAD_100}", LOAD_100, many),
    ]
    print("| step | before: s | MB | after: s | MB |\n|---|---:|---:|---:|---:|")
    for step in steps:
        print(f"| {step.title} | {' | '.join(measure(step))} |", flush=True)


def measure(step: Step) -> list[str]:
    """Return processor time in seconds and peak memory in MB, before and after."""
    runs = [(run(step, step.before), run(step, step.after)) for _ in range(ROUNDS)]
    cells = []
    for side in (0, 1):
        for number, digits in ((0, 2), (1, 0)):
            values = [pair[side][number] for pair in runs]
            cells.append(f"{statistics.median(values):.{digits}f}")
    return cells


def run(step: Step, code: str) -> tuple[float, float]:
    """Run a step in a new interpreter with one thread per library."""
    paths = [] if step.library is None else [str(environments.install_libraries(step.library))]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(servers.PROGRAMS), *paths]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(preparation=step.preparation, step=code)],
        env=variables,
        cwd=WORK,
        capture_output=True,
        text=True,
        check=True,
    )
    used, peak = json.loads(done.stdout.splitlines()[-1])
    return used, peak


if __name__ == "__main__":
    main()
