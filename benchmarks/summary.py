"""Summary of the page of benchmarks: three charts, and one table with a column per server."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .plots import Chart
from .results import CLOSED, Results, Startup, Summary, summaries
from .servers import BASE, SERVERS

# Servers of the summary; the others are in the tables.
COLUMNS = ("ours", "mlserver1", "mlflow", "kserve", "bentoml", "litserve", "rayserve", "fastapi")
TITLES = {server.name: server.title for server in SERVERS}
OWN_TITLE = TITLES[BASE]
CONNECTIONS = 16
PLAIN_JSON = ("invocations", "plain", "v2")
V2_JSON = ("v2", "plain")
Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Row:
    """A row of the table: a number per server.

    Attributes:
        is_more_better: Whether the largest number is the best.
        digits: Decimals of the numbers.
    """

    title: str
    values: Mapping[str, float]
    is_more_better: bool
    digits: int = 0


def charts(results: Results) -> list[Chart]:
    """Return throughput, time to ready and memory of every server that was measured."""
    rates = _rates(results, "wine-1", PLAIN_JSON, lambda summary: summary.per_second)
    ready = _startups(results, "wine-1", lambda start: start.ready)
    memory = _startups(results, "wine-1", lambda start: start.memory_after.all_pss)
    drawn = [
        Chart("requests", f"Requests per second, one row, {CONNECTIONS} connections", rates, True),
        Chart("ready", "Seconds from the command to the first right answer", ready, False, 1),
        Chart("memory", "Memory of all processes, MB", memory, False),
    ]
    return [_with_titles(chart) for chart in drawn if chart.values]


def _with_titles(chart: Chart) -> Chart:
    values = {TITLES[name]: number for name, number in chart.values.items()}
    return Chart(chart.name, chart.title, values, chart.is_more_better, chart.digits)


def table(results: Results) -> str:
    """Return the table; the best number of each row is bold."""
    rows = [row for row in _rows(results) if row.values]
    names = [name for name in COLUMNS if any(name in row.values for row in rows)]
    lines = ["| | " + " | ".join(TITLES[name] for name in names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in rows:
        choose = max if row.is_more_better else min
        best = choose(row.values.values())
        cells = []
        for name in names:
            cells.append(_format_cell(row.values.get(name), best, row.digits))
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _format_cell(value: float | None, best: float, digits: int) -> str:
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return f"**{text}**" if text == f"{best:,.{digits}f}" else text


def _rows(results: Results) -> list[Row]:
    def rate(title: str, case: str, wires: tuple[str, ...]) -> Row:
        values = _rates(results, case, wires, lambda summary: summary.per_second)
        return Row(f"{title}, requests/s", values, True)

    one_row = "one row of 11 numbers"
    slowest = _rates(results, "wine-1", PLAIN_JSON, lambda summary: summary.p99)
    used = _rates(results, "wine-1", PLAIN_JSON, lambda summary: summary.cpu_all / 1000)
    return [
        rate(f"{one_row}, JSON", "wine-1", PLAIN_JSON),
        Row("the same, 99 of 100 answers within, ms", slowest, False, 1),
        Row("the same, processor time per request, ms", used, False, 2),
        rate(f"{one_row}, V2 JSON", "wine-1", ("v2",)),
        rate(f"{one_row}, gRPC", "wine-1", ("grpc",)),
        rate("1,000 x 100 numbers, JSON", "sum", V2_JSON),
        rate("100 texts, JSON", "text", V2_JSON),
        rate("a model that computes 5 ms in Python", "busy", V2_JSON),
        rate("a model that waits 20 ms", "wait", V2_JSON),
        Row("ready, s", _startups(results, "wine-1", lambda start: start.ready), False, 1),
        Row("memory, MB", _startups(results, "wine-1", _get_memory), False),
        Row("50 models: ready, s", _startups(results, "fifty", lambda s: s.ready), False, 1),
        Row("50 models: memory, MB", _startups(results, "fifty", _get_memory), False),
    ]


def _get_memory(start: Startup) -> float:
    return start.memory_after.all_pss


def _rates(
    results: Results, case: str, wires: tuple[str, ...], value: Callable[[Summary], float]
) -> dict[str, float]:
    """Return a number per server at `CONNECTIONS`, over the first of the wires that it has."""
    summary_by_key = summaries(results.measurements)
    values: dict[str, float] = {}
    for name in COLUMNS:
        for wire in wires:
            summary = summary_by_key.get((name, case, wire, CLOSED, CONNECTIONS))
            if summary is not None:
                values[name] = value(summary)
                break
    return values


def _startups(results: Results, case: str, value: Callable[[Startup], float]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in COLUMNS:
        numbers = [
            value(start)
            for start in results.startups
            if start.server == name and start.case == case
        ]
        if numbers:
            values[name] = statistics.median(numbers)
    return values
