"""Command `python -m benchmarks.run`: measures servers, writes results and the page of benchmarks.

`--quick` measures the quick start's two requests at 1 and 16 connections on four servers, in about
two minutes, and prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import environments, load, report, servers, wine
from .cases import CASES, Case
from .results import Failure, Results, describe_machine, public
from .session import Plan, Turn

WORK = environments.ROOT / ".benchmarks"
RESULTS = Path(__file__).parent / "results"
QUICK_SERVERS = ("ours", "mlserver1", "mlflow", "baseline-batching")


def main() -> None:
    options = parse_arguments()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # unwinds the `with` blocks that stop the servers
    for tool, package in load.missing_tools().items():
        print(f"{tool} is not installed ({package})")
        if tool == "wrk":
            raise SystemExit(1)
    plan = Plan(
        options.seconds, options.rounds, options.connections, options.wires, options.open_loop
    )
    selected = [servers.BY_NAME[name] for name in options.servers]
    results = measure(selected, [case for case in CASES if case.name in options.cases], plan)
    path = options.output or RESULTS / f"{results.date}.json"
    if path.exists():  # an earlier run of the same day: keep the cases that this one has not
        results = results.with_earlier(Results.read(path))
    results.save(path)
    if options.report:
        report.main()
    else:
        print(report.tables(results))


def measure(
    selected: Sequence[servers.Server], measured_cases: Sequence[Case], plan: Plan
) -> Results:
    """Install and train, then measure in rounds: all servers per model, in changing order."""
    WORK.mkdir(exist_ok=True)
    table = WORK / "wine.csv"
    results = Results(
        machine=describe_machine(),
        versions={},
        tools=load.describe_tools(),
        table=wine.write_table(table),
        seconds=plan.seconds,
        rounds=plan.rounds,
    )
    models = prepare(selected, table, results)
    running = [server for server in selected if server.environment in models]
    groups = [
        list(group)
        for _, group in itertools.groupby(measured_cases, lambda case: (case.model, case.copies))
    ]
    for number in range(plan.rounds):
        order = running[number % len(running) :] + running[: number % len(running)]
        for group in groups:
            for server in order:
                turn(server, group, models[server.environment], plan, results, number)
    return results


def turn(
    server: servers.Server,
    group: list[Case],
    model: Path,
    plan: Plan,
    results: Results,
    number: int,
) -> None:
    """Measure one server, unless it failed to start for this model before."""
    names = {case.name for case in group}
    if any(
        f.server == server.name and f.case in names and "does not start" in f.reason
        for f in results.failures
    ):
        return
    measured, failed = len(results.measurements), len(results.failures)
    Turn(server, plan, results, number).run(group, model, WORK / f"{server.name}.log")
    for each in results.measurements[measured:]:
        where = f"round {number + 1}  {each.server:18} {each.case:10} {each.wire:11}"
        where += f" {each.mode:9} {each.connections:3}"
        print(f"{where}  {each.load.per_second:9.1f}/s  p50 {each.load.p50:8.2f} ms", flush=True)
    for failure in results.failures[failed:]:
        where = f"round {number + 1}  {failure.server:18} {failure.case:10}"
        print(
            f"{where} {failure.wire}: {failure.reason}",
            flush=True,
        )


def prepare(selected: Sequence[servers.Server], table: Path, results: Results) -> dict[str, Path]:
    """Create the environments, and train the model in each; return environment -> model folder."""
    models = {}
    for name in dict.fromkeys(server.environment for server in selected):
        try:
            environments.install(name)
            models[name] = train(name, table)
            results.versions[name] = environments.versions(name)
        except environments.NotInstalled as error:
            print(f"{name}: {error}", flush=True)
            users = [server for server in selected if server.environment == name]
            results.failures += [
                Failure(server.name, "", "", public(f"cannot be installed: {error}"))
                for server in users
            ]
    return models


def train(name: str, table: Path) -> Path:
    """Train the wine model with the libraries of the environment that serves it."""
    folder = WORK / f"wine-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        str(environments.python(name)),
        str(servers.PROGRAMS / "train.py"),
        str(table),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=WORK, check=False)
    if done.returncode:
        raise environments.NotInstalled(
            f"the model cannot be trained: {done.stderr.splitlines()[-1:]}"
        )
    return folder


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure this server beside its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="two requests, four servers, about two minutes"
    )
    parser.add_argument(
        "--servers", type=_words, help="names, with commas: " + " ".join(servers.BY_NAME)
    )
    parser.add_argument(
        "--cases", type=_words, help="names, with commas: " + " ".join(case.name for case in CASES)
    )
    parser.add_argument(
        "--wires", type=_words, help="v2, invocations, plain, binary, arrow, grpc, grpc-typed"
    )
    parser.add_argument("--connections", type=_numbers, help="of the closed loop, with commas")
    parser.add_argument("--seconds", type=int, help="length of one measurement")
    parser.add_argument(
        "--rounds", type=int, help="how often each is measured; the tables hold medians"
    )
    parser.add_argument("--no-open-loop", dest="open_loop", action="store_false", default=None)
    parser.add_argument(
        "--output", type=Path, help="the JSON file (default: benchmarks/results/DATE.json)"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        default=None,
        help="write the page of benchmarks and its plots",
    )
    return fill_defaults(parser.parse_args())


def fill_defaults(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in the defaults of the quick run or of the full benchmark."""
    quick = {
        "servers": QUICK_SERVERS,
        "cases": ("wine-1",),
        "wires": ("v2", "invocations"),
        "connections": (1, 16),
        "seconds": 2,
        "rounds": 2,
        "open_loop": False,
        "report": False,
        "output": WORK / "quick.json",
    }
    full = {
        "servers": tuple(servers.BY_NAME),
        "cases": tuple(case.name for case in CASES),
        "wires": (),
        "connections": (),
        "seconds": 3,
        "rounds": 3,
        "open_loop": True,
        "report": False,
        "output": None,
    }
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


if __name__ == "__main__":
    main()
