"""Results of a run: records, and their JSON file."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from .load import Load
from .process import Memory

CLOSED = "closed"
# Names of servers in older results files -> current names.
FORMER_NAMES = {"floor": "baseline", "floor-join": "baseline-batching"}


@dataclass(frozen=True)
class Measurement:
    """One run of a load tool; CPU in us per request, of the started process and of all."""

    server: str
    case: str
    wire: str
    mode: str
    connections: int
    round: int
    load: Load
    cpu_parent: float
    cpu_all: float
    rate: float = 0.0

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return (self.server, self.case, self.wire, self.mode, self.connections)


@dataclass(frozen=True)
class Startup:
    """One start: seconds to the first correct response, and megabytes before and after the load."""

    server: str
    case: str
    round: int
    ready: float
    memory: Memory
    memory_after: Memory


# Folders and addresses of one machine.
_PRIVATE = re.compile(r"(?:https?|file)://\S+|(?<![\w.])/(?:[\w.+-]+/)+")


def public(reason: str) -> str:
    """Return a reason in one line, without the machine's folders and addresses."""
    return " ".join(_PRIVATE.sub("", reason).split())


@dataclass(frozen=True)
class Failure:
    """A failed measurement; the reason as returned by `public`."""

    server: str
    case: str
    wire: str
    reason: str


@dataclass
class Results:
    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    tools: dict[str, str]
    table: str
    seconds: int
    rounds: int
    date: str = field(default_factory=lambda: date.today().isoformat())
    measurements: list[Measurement] = field(default_factory=list)
    startups: list[Startup] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    # Case -> date of its measurements, if they are from an earlier run.
    dates: dict[str, str] = field(default_factory=dict)
    # Case -> what a reader has to know about its measurements.
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> set[str]:
        """Names of the measured cases."""
        measured = {each.case for each in self.measurements}
        return measured | {each.case for each in self.startups}

    def get_date(self, case: str) -> str:
        return self.dates.get(case, self.date)

    def with_earlier(self, earlier: Results) -> Results:
        """Return these results with the cases of an earlier run that this one has not.

        All servers of a case are from one run, so that ratios compare what ran together.
        """
        cases = earlier.cases - self.cases
        return replace(
            self,
            versions=earlier.versions | self.versions,
            measurements=self.measurements + [m for m in earlier.measurements if m.case in cases],
            startups=self.startups + [s for s in earlier.startups if s.case in cases],
            failures=self.failures + [f for f in earlier.failures if f.case in cases],
            dates=self.dates | {case: earlier.get_date(case) for case in cases},
            notes=self.notes | {case: earlier.notes[case] for case in cases & set(earlier.notes)},
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a results file; servers under their former names are renamed."""
        values = json.loads(path.read_text())
        for record in (*values["measurements"], *values["startups"], *values["failures"]):
            record["server"] = FORMER_NAMES.get(record["server"], record["server"])
        values["measurements"] = [
            Measurement(**each | {"load": Load(**each["load"])}) for each in values["measurements"]
        ]
        values["startups"] = [_startup(each) for each in values["startups"]]
        values["failures"] = [Failure(**each) for each in values["failures"]]
        return cls(**values)


def _startup(values: dict[str, Any]) -> Startup:
    memories = {name: Memory(**values[name]) for name in ("memory", "memory_after")}
    return Startup(**values | memories)


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds of a measurement."""

    per_second: float
    p50: float
    p99: float
    p999: float
    cpu_parent: float
    cpu_all: float
    rate: float
    errors: int


def summaries(measurements: Iterable[Measurement]) -> dict[tuple[str, str, str, str, int], Summary]:
    """Return the medians over the rounds of each measurement; errors are summed."""
    groups: dict[tuple[str, str, str, str, int], list[Measurement]] = {}
    for each in measurements:
        groups.setdefault(each.key, []).append(each)
    return {key: _summary(group) for key, group in groups.items()}


def _summary(group: list[Measurement]) -> Summary:
    middle = statistics.median
    return Summary(
        per_second=middle(each.load.per_second for each in group),
        p50=middle(each.load.p50 for each in group),
        p99=middle(each.load.p99 for each in group),
        p999=middle(each.load.p999 for each in group),
        cpu_parent=middle(each.cpu_parent for each in group),
        cpu_all=middle(each.cpu_all for each in group),
        rate=middle(each.rate for each in group),
        errors=sum(each.load.errors for each in group),
    )


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory, kernel and Python version."""
    cpu = _first_field(Path("/proc/cpuinfo"), "model name")
    memory = int(_first_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 2**20
    return {
        "processor": cpu or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _first_field(path: Path, name: str) -> str:
    lines = path.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "0")
