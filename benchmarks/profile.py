"""Profile of the server under load with py-spy: `python -m benchmarks.profile`.

Prints the functions of the parent and of the worker by own and by cumulative time, in percent of
the samples in which a thread held the GIL; waiting and NumPy without the GIL do not count. Run it
as a module: the folder itself must not be on Python's path.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import cases, load, run, servers, wine
from .process import ServerProcess
from .running import Running

RATE = 500  # samples per second
TOP = 25


def main() -> None:
    options = parse_arguments()
    case = next(case for case in cases.CASES if case.name == options.case)
    server = servers.BY_NAME[options.server]
    run.WORK.mkdir(exist_ok=True)
    table = run.WORK / "wine.csv"
    wine.write_table(table)
    model = run.train(server.environment, table)
    with (
        tempfile.TemporaryDirectory(prefix="profile-") as name,
        Running(server, case, model, run.WORK / "profile.log") as running,
    ):
        target = running.target(case, options.wire)
        running.wait(case, target)
        load.closed(target, options.connections, 1)
        stacks = sample(running.process, target, options.connections, options.seconds, Path(name))
    for pid, (title, lines) in stacks.items():
        print(f"\n{title} (pid {pid})\n{table_of(lines)}")


def sample(
    process: ServerProcess, target: load.Target, connections: int, seconds: int, folder: Path
) -> dict[int, tuple[str, list[str]]]:
    """Return py-spy's collapsed stacks of every process under load."""
    names = process.cpu().names
    spy = [
        str(Path(sys.executable).parent / "py-spy"),
        "record",
        "--gil",
        "--format",
        "raw",
        "--rate",
        str(RATE),
    ]
    runs = {}
    for pid in names:
        command = [
            *spy,
            "--duration",
            str(seconds),
            "--pid",
            str(pid),
            "--output",
            str(folder / f"{pid}.raw"),
        ]
        runs[pid] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = process.cpu().seconds
    result = load.closed(target, connections, seconds)
    used = {pid: total - before.get(pid, 0.0) for pid, total in process.cpu().seconds.items()}
    print(
        f"{result.per_second:,.0f} requests/s during profiling,"
        f" p50 {result.p50:.2f} ms, p99 {result.p99:.2f} ms"
    )
    stacks = {}
    for pid, watcher in runs.items():
        watcher.wait()
        file = folder / f"{pid}.raw"
        lines = file.read_text().splitlines() if file.exists() else []
        share = 100 * used.get(pid, 0.0) / seconds
        title = f"{'parent: ' * (pid == process.pid)}{names[pid]}, {share:.0f} % of a core"
        stacks[pid] = (title, lines)
    return stacks


def table_of(lines: Sequence[str]) -> str:
    """Return a table of the functions by own time and by cumulative time."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        names = [_function(frame) for frame in stack.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            cumulative[name] += int(count)
    total = sum(own.values())
    if not total:
        return "(no samples)"
    left = [f"{100 * count / total:5.1f} %  {name}" for name, count in own.most_common(TOP)]
    right = [f"{100 * count / total:5.1f} %  {name}" for name, count in cumulative.most_common(TOP)]
    width = max(len(line) for line in left) + 3
    rows = [f"{'own time':{width}}cumulative time"]
    rows += [f"{a:{width}}{b}" for a, b in zip(left, right, strict=False)]
    return "\n".join(rows)


def _function(frame: str) -> str:
    """Return `function (file)` of `function (file:line)`."""
    return frame.rsplit(":", 1)[0] + ")" if frame.endswith(")") and ":" in frame else frame


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="py-spy on a server under load.")
    parser.add_argument("--server", default=servers.BASE, choices=list(servers.BY_NAME))
    parser.add_argument("--case", default="wine-1", choices=[case.name for case in cases.CASES])
    parser.add_argument("--wire", default="v2")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
