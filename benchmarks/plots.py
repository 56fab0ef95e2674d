"""Bar charts of the results: requests per second, time to ready, and memory of each server."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

from .cases import CASES
from .results import CLOSED, Results, Summary, summaries
from .servers import BASE, SERVERS

matplotlib.use("Agg")
from matplotlib import pyplot

OURS, OTHERS, BASELINE = "#d1495b", "#8fa3b3", "#c9b27c"
TITLES = {server.name: server.title for server in SERVERS}
Key = tuple[str, str, str, str, int]


def write(results: Results, folder: Path) -> dict[str, Path]:
    """Draw the charts of a run; return title -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    summary_by_key = summaries(results.measurements)
    drawn = {}
    for wire, plain in (("v2", False), ("invocations", True)):
        for connections in (1, 16, 64):
            wires = (wire, "plain") if plain else (wire,)
            rates = _values(summary_by_key, wires, connections)
            if len(rates) > 1:
                protocol = "/invocations" if plain else "V2 JSON"
                suffix = "s" if connections > 1 else ""
                load = f"{connections} connection{suffix}"
                title = f"One row over {protocol}, {load}: requests per second"
                drawn[title] = _bars(rates, title, folder / f"{wire}-{connections}.png")
    ready = {
        server: _middle(
            [s.ready for s in results.startups if s.server == server and s.case == "wine-1"]
        )
        for server in TITLES
    }
    drawn |= _optional(ready, "Seconds to the first correct response", folder / "ready.png")
    memory = {
        server: _middle(
            [
                s.memory_after.all_pss
                for s in results.startups
                if s.server == server and s.case == "wine-1"
            ]
        )
        for server in TITLES
    }
    return drawn | _optional(memory, "Memory of all processes, PSS in MB", folder / "memory.png")


def _optional(values: dict[str, float], title: str, path: Path) -> dict[str, Path]:
    known = {server: value for server, value in values.items() if value}
    return {title: _bars(known, title, path)} if known else {}


def _middle(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


def _values(
    summary_by_key: dict[Key, Summary], wires: tuple[str, ...], connections: int
) -> dict[str, float]:
    case = CASES[0].name
    return {
        server: summary.per_second
        for server in TITLES
        for wire in wires
        if (summary := summary_by_key.get((server, case, wire, CLOSED, connections))) is not None
        and server != "echo"
    }


def _bars(values: dict[str, float], title: str, path: Path) -> Path:
    """Horizontal bars, largest on top, each with its number."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure, axes = pyplot.subplots(figsize=(8, 0.42 * len(ordered) + 1.1))
    colors = [
        OURS if name == BASE else BASELINE if name.startswith("baseline") else OTHERS
        for name, _ in ordered
    ]
    bars = axes.barh(
        [TITLES[name] for name, _ in ordered], [value for _, value in ordered], color=colors
    )
    axes.bar_label(
        bars, fmt="{:,.0f}" if max(values.values()) > 100 else "{:,.1f}", padding=4, fontsize=9
    )
    axes.margins(x=0.14)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.xaxis.set_visible(False)
    axes.set_title(title, fontsize=11, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
