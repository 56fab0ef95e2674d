"""Command `python -m benchmarks.cold_start`: from the start of a program to its first right answer.

Every server runs in the environment of its own, with the same model files; the model libraries are
in folders that all get. One round starts every server once per model, in changing order. Wall-clock
time and processor time end with the first correct response, and memory is measured then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import cold_results, environments, load, servers, wine
from .cases import Case
from .cold_results import Start, Starts
from .results import describe_machine, public
from .run import WORK
from .running import Running

BARE = "bare-mlflow"
HAS_WORKERS = ("ours", "mlserver1")  # with the setting of `FOUR_WORKERS`
SERVERS = ("ours", "mlserver1", "mlflow", "bentoml", "kserve", BARE)
# Flavor -> folder of its library, on the search path of the servers that load it.
FLAVORS = {
    "sklearn-skops": None,
    "sklearn-cloudpickle": None,
    "xgboost": "libraries",
    "lightgbm": "libraries",
    "onnx": "libraries",
    "pytorch": "pytorch",
    cold_results.FOUR_WORKERS: None,
}
WIRES = ("invocations", "v2", "plain")
COUNTED_FLAVOR = "sklearn-skops"  # of the repositories with several models, and of four workers
FOUR_WORKERS = {"MLSERVER_PARALLEL_WORKERS": "4"}


@dataclass(frozen=True)
class Model:
    """A flavor's trained model; `copies` = number of models in the repository, 0 = one.

    Attributes:
        variables: Environment variables of the servers.
    """

    flavor: str
    folder: Path
    variables: dict[str, str]
    copies: int = 0

    @property
    def case(self) -> Case:
        return Case(self.flavor, self.flavor, "wine", 1, (1,), WIRES, copies=self.copies)


class ColdServer(Running):
    """A server whose responses are compared with the answer that was saved with the model."""

    def __init__(self, server: servers.Server, model: Model, log: Path) -> None:
        super().__init__(server, model.case, model.folder, log, model.variables)

    def _is_correct(self, case: Case, target: load.Target, body: bytes) -> bool:
        try:
            values = target.exchange.read(body)
            return is_answer(values, self._linear["answer"])
        except (KeyError, IndexError, TypeError, ValueError):
            return False


def is_answer(values: Any, answer: float) -> bool:
    """Whether a response holds one number, the expected one to the precision of FP32."""
    numbers = np.asarray(_flatten(values), dtype=np.float64)
    return numbers.size == 1 and bool(np.allclose(numbers, answer, rtol=1e-4))


def _flatten(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return _flatten(list(values.values()))
    if not isinstance(values, list):
        return [values]
    numbers: list[Any] = []
    for value in values:
        numbers += _flatten(value)
    return numbers


def main() -> None:
    options = parse_arguments()
    table = WORK / "wine.csv"
    WORK.mkdir(exist_ok=True)
    starts = Starts(describe_machine(), {}, wine.write_table(table), options.rounds)
    names = [name for name in options.servers if install(name, starts)]
    models = [train(flavor, table) for flavor in options.flavors]
    counted = [train(COUNTED_FLAVOR, table, copies) for copies in options.models]
    for number in range(options.rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        for model in (*models, *counted):
            for name in order:
                measure(name, model, number, starts)
    path = options.output or cold_results.FOLDER / f"cold-start-{starts.date}.json"
    if path.exists():  # an earlier run of the day
        starts = starts.with_earlier(Starts.read(path))
    starts.save(path)
    print(cold_results.tables(starts))


def install(name: str, starts: Starts) -> bool:
    """Install a server's environment; return whether it is installed."""
    environment = "mlflow" if name == BARE else servers.BY_NAME[name].environment
    try:
        environments.install(environment)
    except environments.NotInstalled as error:
        starts.failures.append(public(f"{name} cannot be installed: {error}"))
        return False
    starts.versions[environment] = environments.versions(environment)
    return True


def train(flavor: str, table: Path, copies: int = 0) -> Model:
    """Train a flavor's model in this environment, unless it is there."""
    library = FLAVORS[flavor]
    paths = [] if library is None else [str(environments.install_libraries(library))]
    variables = {"PYTHONPATH": os.pathsep.join([str(servers.PROGRAMS), *paths])}
    trained_flavor = flavor
    if flavor == cold_results.FOUR_WORKERS:
        variables |= FOUR_WORKERS
        trained_flavor = COUNTED_FLAVOR
    folder = WORK / "cold" / trained_flavor
    if not folder.with_suffix(".json").exists():
        folder.parent.mkdir(exist_ok=True)
        program = servers.PROGRAMS / "train_flavor.py"
        subprocess.run(
            [
                sys.executable,
                str(program),
                str(table),
                trained_flavor,
                str(folder),
                json.dumps(wine.ONE_ROW),
            ],
            env={**os.environ, **variables},
            cwd=WORK,
            check=True,
        )
    return Model(flavor, folder, variables, copies)


def measure(name: str, model: Model, number: int, starts: Starts) -> None:
    """Start a server once; a failure is recorded, and the others continue."""
    where = f"round {number + 1}  {name:12} {model.flavor:20} {model.copies or 1:4}"
    try:
        start = _run_bare(model, number) if name == BARE else _run_server(name, model, number)
    except load.LoadFailed as error:
        starts.failures.append(public(f"{name}, {model.flavor}: {error}")[:200])
        print(f"{where}  {starts.failures[-1]}", flush=True)
        return
    if start is not None:
        starts.starts.append(start)
        print(
            f"{where}  {start.ready:6.2f} s  processor {start.cpu:6.2f} s  {start.pss:6.0f} MB",
            flush=True,
        )


def _run_server(name: str, model: Model, number: int) -> Start | None:
    server = servers.BY_NAME[name]
    # `/invocations` names no model: requests to several models are sent over V2.
    allowed = ("v2",) if model.copies else WIRES
    wires = [wire for wire in allowed if wire in server.wires]
    if not wires:
        return None
    is_supported = server.copies or not model.copies
    if not is_supported or (model.flavor == cold_results.FOUR_WORKERS and name not in HAS_WORKERS):
        return None
    with ColdServer(server, model, WORK / f"{name}-cold.log") as running:
        target = running.target(model.case, wires[0])
        ready = running.wait(model.case, target)
        cpu = sum(running.process.cpu().seconds.values())
        memory = running.process.memory()
    return Start(name, model.flavor, model.copies or 1, number, ready, cpu, memory.all_pss)


def _run_bare(model: Model, number: int) -> Start | None:
    """Load and predict in one process; its memory is the peak of its resident set."""
    if model.copies or model.flavor == cold_results.FOUR_WORKERS:
        return None
    program = servers.PROGRAMS / "bare_mlflow.py"
    command = [str(environments.python("mlflow")), str(program), str(model.folder)]
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **model.variables}, cwd=WORK, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read().decode()
    ready = time.monotonic() - started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    answer = json.loads(model.folder.with_suffix(".json").read_text())["answer"]
    if status or not is_answer(float(output.split()[-1]), answer):
        raise load.LoadFailed(f"exit status {status}, answer {output[:100]!r}")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return Start(BARE, model.flavor, 1, number, ready, cpu, peak)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the start of this server and its peers.")
    parser.add_argument("--servers", type=_words, default=SERVERS, help=" ".join(SERVERS))
    parser.add_argument("--flavors", type=_words, default=tuple(FLAVORS), help=" ".join(FLAVORS))
    parser.add_argument(
        "--models", type=_numbers, default=(50, 200), help="sizes of the larger repositories"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the tables hold medians")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/cold-start-DATE")
    return parser.parse_args()


def _words(text: str) -> Sequence[str]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> Sequence[int]:
    return tuple(map(int, _words(text)))


if __name__ == "__main__":
    main()
