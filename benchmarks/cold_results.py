"""Results of the cold start: records, their JSON file, and their tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

from .servers import BASE
from .servers import SERVERS as ALL_SERVERS

FOLDER = Path(__file__).parent / "results"
TITLES = {server.name: server.title for server in ALL_SERVERS}
TITLES |= {"bare-mlflow": "MLflow without a server", "mlserver1": "MLServer 1.7.1"}
FOUR_WORKERS = "four-workers"
FLAVOR_TITLES = {
    "sklearn-skops": "scikit-learn, skops",
    "sklearn-cloudpickle": "scikit-learn, cloudpickle",
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "onnx": "ONNX",
    "pytorch": "PyTorch",
    FOUR_WORKERS: "scikit-learn, skops, 4 workers",
}
PEER = "mlserver1"
# Title -> flavor and number of models; goals for time to ready and memory, as shares of MLServer's.
GOALS = {
    "1 worker": ("sklearn-skops", 1, 0.6, 0.7),
    "4 workers": (FOUR_WORKERS, 1, 0.5, 0.45),
    "50 models": ("sklearn-skops", 50, 0.7, 0.8),
}


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        models: Number of models in the repository.
        ready: Seconds from the start of the command to the first correct response.
        cpu: Processor time of all processes until then, in seconds.
        pss: Memory of all processes then, in MB; the peak of the resident set without a server.
    """

    server: str
    flavor: str
    models: int
    round: int
    ready: float
    cpu: float
    pss: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.server, self.flavor, self.models

    @property
    def column(self) -> str:
        """Title of what was started."""
        title = FLAVOR_TITLES[self.flavor]
        return title if self.models == 1 else f"{title}, {self.models} models"


@dataclass
class Starts:
    """All starts of a run.

    Attributes:
        dates: Column of the tables -> date of its starts, if they are from an earlier run.
    """

    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    table: str
    rounds: int
    date: str = field(default_factory=lambda: date.today().isoformat())
    starts: list[Start] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    dates: dict[str, str] = field(default_factory=dict)

    def with_earlier(self, earlier: Starts) -> Starts:
        """Return these starts with those of the flavors and counts that this run has not.

        All servers of one column are from one run, so that ratios compare what ran together.
        """
        measured = {start.column for start in self.starts}
        added = [start for start in earlier.starts if start.column not in measured]
        dates = {start.column: earlier.dates.get(start.column, earlier.date) for start in added}
        return replace(
            self,
            versions=earlier.versions | self.versions,
            starts=self.starts + added,
            dates=self.dates | dates,
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Starts:
        values = json.loads(path.read_text())
        values["starts"] = [Start(**each) for each in values["starts"]]
        return cls(**values)

    @classmethod
    def read_all(cls) -> Starts | None:
        """Return the newest starts of each flavor and count; None without a run."""
        paths = sorted(FOLDER.glob("cold-start-*.json"), reverse=True)
        if not paths:
            return None
        starts = cls.read(paths[0])
        for path in paths[1:]:
            starts = starts.with_earlier(cls.read(path))
        return starts

    def medians(self, value: Callable[[Start], float]) -> dict[tuple[str, str, int], float]:
        """Return the median of a value by server, flavor and number of models."""
        groups: dict[tuple[str, str, int], list[float]] = {}
        for start in self.starts:
            groups.setdefault(start.key, []).append(value(start))
        return {key: statistics.median(group) for key, group in groups.items()}


def tables(starts: Starts) -> str:
    """Return the tables of a run."""
    parts = [
        "## From the start of the command to the first right answer",
        "",
        f"Measured on {starts.date}; medians of {starts.rounds} starts, the servers in turn"
        f" (`python -m benchmarks.cold_start`). Load of the machine before:"
        f" {starts.machine.get('load before', '?')}.",
        "",
        *_flavor_table(starts, "Processor time in seconds", lambda start: start.cpu, 2),
        *_flavor_table(starts, "Wall-clock time in seconds", lambda start: start.ready, 2),
        *_flavor_table(starts, "Memory in MB (PSS of all processes)", lambda start: start.pss, 0),
        *_count_table(starts),
    ]
    parts += [f"- measured on {date}: {column}" for column, date in starts.dates.items()]
    parts += [f"- not measured: {failure}" for failure in dict.fromkeys(starts.failures)]
    return "\n".join(parts) + "\n"


def goals_table(starts: Starts) -> str:
    """Return the goals for start and memory beside what was measured, as shares of MLServer's."""
    ready = starts.medians(lambda start: start.ready)
    cpu = starts.medians(lambda start: start.cpu)
    pss = starts.medians(lambda start: start.pss)
    lines = [
        f"| mlserver 2 / {TITLES[PEER]} | ready: goal | measured | processor time | memory: goal"
        " | measured |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, (flavor, models, ready_goal, memory_goal) in GOALS.items():
        own, peer = (BASE, flavor, models), (PEER, flavor, models)
        if own not in ready or peer not in ready:
            continue
        shares = [f"{values[own] / values[peer]:.2f}" for values in (ready, cpu, pss)]
        lines.append(
            f"| {title} | {ready_goal:g} | {shares[0]} | {shares[1]} | {memory_goal:g}"
            f" | {shares[2]} |"
        )
    return "\n".join(lines) + "\n"


def _flavor_table(
    starts: Starts, title: str, value: Callable[[Start], float], digits: int
) -> list[str]:
    medians = starts.medians(value)
    flavors = [flavor for flavor in FLAVOR_TITLES if any(key[1] == flavor for key in medians)]
    names = list(dict.fromkeys(key[0] for key in medians))
    lines = [f"**{title}** (in brackets: ratio to mlserver 2)", ""]
    lines.append("| server | " + " | ".join(FLAVOR_TITLES[flavor] for flavor in flavors) + " |")
    lines.append("|---|" + "---:|" * len(flavors))
    for name in sorted(names, key=lambda name: (name != BASE, names.index(name))):
        cells = []
        for flavor in flavors:
            own, base = medians.get((name, flavor, 1)), medians.get((BASE, flavor, 1))
            cells.append(_beside(own, base, digits))
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return [*lines, ""]


def _beside(own: float | None, base: float | None, digits: int) -> str:
    if own is None:
        return ""
    ratio = f" ({own / base:.2f}x)" if base else ""
    return f"{own:,.{digits}f}{ratio}"


def _count_table(starts: Starts) -> list[str]:
    """Return ready, processor time and memory by number of models, and per further model."""
    ready, cpu, pss = (
        starts.medians(lambda start: start.ready),
        starts.medians(lambda start: start.cpu),
        starts.medians(lambda start: start.pss),
    )
    counted = sorted({key for key in cpu if key[2] > 1}, key=lambda key: (key[2], key[0] != BASE))
    if not counted:
        return []
    lines = ["**Several models of one server** (scikit-learn, skops)", ""]
    lines.append(
        "| models | server | ready s | processor s | MB | further model: processor ms | MB |"
    )
    lines.append("|---:|---|---:|---:|---:|---:|---:|")
    for server, flavor, models in counted:
        key, single = (server, flavor, models), (server, flavor, 1)
        base = (BASE, flavor, models)
        cells = [
            _beside(ready[key], ready.get(base), 2),
            _beside(cpu[key], cpu.get(base), 2),
            _beside(pss[key], pss.get(base), 0),
        ]
        if single in cpu:
            cells.append(f"{1000 * (cpu[key] - cpu[single]) / (models - 1):.0f}")
            cells.append(f"{(pss[key] - pss[single]) / (models - 1):.2f}")
        else:
            cells += ["", ""]
        lines.append(f"| {models} | {TITLES[server]} | {' | '.join(cells)} |")
    return [*lines, ""]
