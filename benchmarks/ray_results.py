"""Results of `make bench-ray`: records, their JSON file, and the tables of a documentation page."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from .load import Load

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "decisions" / "ray.md"
START, END = "<!-- results: written by `make bench-ray` -->", "<!-- end of the results -->"
TITLES = {
    "default": "plain Ray Serve, default",
    "tuned": "plain Ray Serve, `max_ongoing_requests` 128",
    "throughput": "the same with `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`",
    "haproxy": "the same with `RAY_SERVE_ENABLE_HA_PROXY=1`",
    "ray": "engine `ray`",
    "local": "engine `local`",
}
PEERS = ("default", "tuned", "throughput", "haproxy")
CASES = {
    "wine": "One-row `/invocations` of the wine model",
    "sum": "Row sums of 1,000 x 100 FP32: V2 with binary tensors, for plain Ray Serve bare bytes",
}


@dataclass(frozen=True)
class RayLoad:
    """One run of the load tool."""

    server: str
    case: str
    connections: int
    round: int
    load: Load


@dataclass
class RayResults:
    """All loads of a run."""

    machine: dict[str, str]
    versions: dict[str, str]
    seconds: int
    rounds: int
    date: str = field(default_factory=lambda: date.today().isoformat())
    loads: list[RayLoad] = field(default_factory=list)

    def save(self) -> Path:
        """Write the file of this day."""
        path = FOLDER / f"ray-{self.date}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    @classmethod
    def read_newest(cls) -> RayResults | None:
        """Return the newest results; None = there are none."""
        paths = sorted(FOLDER.glob("ray-*.json"))
        if not paths:
            return None
        values = json.loads(paths[-1].read_text())
        values["loads"] = [
            RayLoad(**{**each, "load": Load(**each["load"])}) for each in values["loads"]
        ]
        return cls(**values)

    # -- tables --

    def select(self, server: str, case: str, connections: int) -> list[Load]:
        return [
            each.load
            for each in self.loads
            if (each.server, each.case, each.connections) == (server, case, connections)
        ]

    def get_rate(self, server: str, case: str, connections: int) -> float:
        """Return the median of the requests per second; 0 = not measured."""
        rates = [load.per_second for load in self.select(server, case, connections)]
        return statistics.median(rates) if rates else 0.0

    def get_latency(self, server: str, case: str, connections: int) -> float:
        """Return the median of the median latencies in milliseconds."""
        return statistics.median(load.p50 for load in self.select(server, case, connections))

    def format(self) -> str:
        """Return the tables in Markdown."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        packages = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        parts = [
            f"`make bench-ray` on {self.date}: {machine}; {packages}. Medians of"
            f" {self.rounds} rounds of {self.seconds} s, interleaved; one replica or worker each;"
            " requests per second and, in parentheses, the median latency in milliseconds."
        ]
        for case, title in CASES.items():
            if any(each.case == case for each in self.loads):
                parts.append(self._format_case(case, title))
        return "\n\n".join([*parts, *self._format_hop()])

    def _format_case(self, case: str, title: str) -> str:
        connections = sorted({each.connections for each in self.loads if each.case == case})
        header = " | ".join(f"{number} conn." for number in connections)
        lines = [f"{title}:", "", f"| server | {header} |", "|---" * (len(connections) + 1) + "|"]
        measured = {each.server for each in self.loads if each.case == case}
        for name in (name for name in TITLES if name in measured):
            cells = [self._format_cell(name, case, number) for number in connections]
            lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
        peers = [name for name in PEERS if name in measured]
        if peers and "ray" in measured:
            ratios = []
            for number in connections:
                best = max(self.get_rate(name, case, number) for name in peers)
                ratios.append(f"{self.get_rate('ray', case, number) / best:.1f}")
            row = f"| engine `ray`, times the best plain Ray Serve | {' | '.join(ratios)} |"
            lines.append(row)
        return "\n".join(lines)

    def _format_cell(self, server: str, case: str, connections: int) -> str:
        loads = self.select(server, case, connections)
        if not loads:
            return ""
        errors = sum(load.errors for load in loads)
        latency = self.get_latency(server, case, connections)
        text = f"{self.get_rate(server, case, connections):,.0f} ({latency:.1f})"
        return text + (f", {errors} errors" if errors else "")

    def _format_hop(self) -> list[str]:
        """Return what the hop costs at one connection."""
        lines = []
        for case in CASES:
            if self.select("ray", case, 1) and self.select("local", case, 1):
                ours, local = (self.get_latency(name, case, 1) for name in ("ray", "local"))
                lines.append(
                    f"The hop at 1 connection, `{case}`: {ours:.2f} - {local:.2f} ="
                    f" {ours - local:.2f} ms."
                )
        return lines


def write_page(results: RayResults) -> None:
    """Write the tables between the markers of the page."""
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n\n{results.format()}\n\n{END}{after}")
