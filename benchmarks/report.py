"""Markdown tables of the results, each number with its ratio to this server's on the same wire."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import cold_results, environments, plots, summary
from .cases import CASES, Case
from .cold_results import Starts
from .ray_results import RayResults
from .ray_results import write_page as write_ray_page
from .results import CLOSED, Results, Startup, Summary, summaries
from .servers import BASE, SERVERS

DOCUMENTS = environments.ROOT / "docs" / "explanation"
SUMMARY_PAGE, TABLES_PAGE = DOCUMENTS / "benchmarks.md", DOCUMENTS / "benchmark-tables.md"
IMAGES = DOCUMENTS / "img"
START, END = "<!-- results: written by `make bench-report` -->", "<!-- end of the results -->"
RESULTS = environments.HERE / "results"
WIRES = {
    "v2": "V2 JSON",
    "invocations": "/invocations",
    "plain": "own JSON",
    "binary": "V2 binary",
    "grpc": "gRPC",
    "grpc-typed": "gRPC, typed contents",
    "arrow": "Arrow",
}
TITLES = {server.name: server.title for server in SERVERS}
NOTHING = Summary(0, 0, 0, 0, 0, 0, 0, 0)
Key = tuple[str, str, str, str, int]


def write(results: Results, starts: Starts | None) -> None:
    """Write the summary's page with its charts, and the page of tables, between their markers."""
    own_title = summary.OWN_TITLE
    drawn = [(chart, plots.write(chart, own_title, IMAGES)) for chart in summary.charts(results)]
    pictures = "\n\n".join(f"![{chart.title}](img/{path.name})" for chart, path in drawn)
    dates = ", ".join(sorted({results.get_date(case) for case in results.cases}))
    conditions = (
        f"Measured on {dates}; the best of each row is bold, empty cells are not supported."
    )
    notes = [f"- {note}" for note in sorted(set(results.notes.values()))]
    parts = [summary.table(results), conditions, "", *notes]
    if starts is not None:
        when = f"Start and memory, medians of {starts.rounds} starts on {starts.date}:"
        parts += ["", when, "", cold_results.goals_table(starts)]
    text = "\n".join(parts)
    _replace(SUMMARY_PAGE, f"{pictures}\n\n{text}")
    start_tables = [] if starts is None else [cold_results.tables(starts)]
    _replace(TABLES_PAGE, "\n".join([tables(results), *start_tables]))


def _replace(page: Path, text: str) -> None:
    before, _, rest = page.read_text().partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n\n{text.rstrip()}\n\n{END}{after}")


def read_all() -> Results:
    """Return the newest measurement of every case in the folder of results.

    Raises:
        FileNotFoundError: there is no results file.
    """
    paths = sorted(RESULTS.glob("[0-9]*.json"), reverse=True)
    if not paths:
        raise FileNotFoundError(f"no results in {RESULTS}: run `make bench`")
    results = Results.read(paths[0])
    for path in paths[1:]:
        results = results.with_earlier(Results.read(path))
    return results


def tables(results: Results) -> str:
    """Return all tables of a run."""
    summary_by_key = summaries(results.measurements)
    parts = [conditions(results), overview(summary_by_key)]
    measured = {key[1] for key in summary_by_key}
    for case in CASES:
        if case.name in measured:
            when = f"Measured on {results.get_date(case.name)}."
            conditions_of_case = f"{when} {results.notes.get(case.name, '')}".strip()
            parts.append(case_tables(case, conditions_of_case, summary_by_key))
    parts += [startup_table(results.startups), failure_table(results)]
    return "\n".join(part for part in parts if part)


def base_wire(case: str, wire: str) -> str:
    """Return this server's wire to compare with: the same, or the equivalent JSON."""
    if wire == "arrow":
        return "v2"
    if wire != "plain":
        return wire
    return "invocations" if case.startswith("wine") else "v2"


def get_title(server: str, wire: str) -> str:
    return f"{TITLES.get(server, server)}, {WIRES[wire]}"


def conditions(results: Results) -> str:
    """Return date, machine, tools and package versions."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    tools = ", ".join(f"{name} {value}" for name, value in results.tools.items())
    lines = [
        f"Measured on {results.date}: {machine}. {tools}. Model trained on {results.table}.",
        f"Each number is the median of {_runs(results)} of {results.seconds} s.",
        "",
        "| environment | versions |",
        "|---|---|",
    ]
    for name, versions in results.versions.items():
        packages = ", ".join(f"{package} {number}" for package, number in versions.items())
        lines.append(f"| {name} | {packages} |")
    return "\n".join(lines) + "\n"


def _runs(results: Results) -> str:
    """Return the number of runs, a range if it differs between servers."""
    counts = set(Counter(each.key for each in results.measurements).values())
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{high} run{'s' if high != 1 else ''}" if low == high else f"{low} to {high} runs"


def overview(summary_by_key: dict[Key, Summary]) -> str:
    """Return this server's throughput as a multiple of each other server's, for every case."""
    columns = [
        (case, wire, connections)
        for case in CASES
        for wire in ("v2", "invocations", "grpc")
        for connections in case.connections
        if (BASE, case.name, wire, CLOSED, connections) in summary_by_key
    ]
    servers = [
        server.name
        for server in SERVERS
        if server.name != BASE and any(key[0] == server.name for key in summary_by_key)
    ]
    if not servers:
        return ""
    lines = [
        "## Throughput of mlserver 2 as a multiple of each server's",
        "",
        "| case | " + " | ".join(TITLES[s] for s in servers) + " |",
    ]
    lines.append("|---|" + "---:|" * len(servers))
    for case, wire, connections in columns:
        cells = [_times(summary_by_key, server, case.name, wire, connections) for server in servers]
        lines.append(
            f"| {case.title}, {WIRES[wire]}, {_connections(connections)} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


def _times(
    summary_by_key: dict[Key, Summary], server: str, case: str, wire: str, connections: int
) -> str:
    """Return the ratio of the rates, on the same wire or on the other server's equivalent JSON."""
    base = summary_by_key[BASE, case, wire, CLOSED, connections]
    for other in (wire, "plain"):
        theirs = summary_by_key.get((server, case, other, CLOSED, connections))
        if theirs and base_wire(case, other) == wire:
            return _ratio(base.per_second, theirs.per_second)
    return ""


def case_tables(case: Case, case_conditions: str, summary_by_key: dict[Key, Summary]) -> str:
    """Return rate, latencies and CPU of each server, per number of connections and open loop."""
    lines = [f"## {case.title}", "", case_conditions, ""]
    modes = dict.fromkeys(
        (key[3], key[4])
        for key in sorted(summary_by_key, key=lambda key: (key[3], key[4]))
        if key[1] == case.name
    )
    for mode, connections in modes:
        lines += [f"**{_describe_mode(mode, connections)}** (in brackets: ratio to mlserver 2)", ""]
        lines += [
            "| server | requests/s | p50 ms | p99 ms | p99.9 ms"
            " | CPU us/request, parent | all | errors |"
        ]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
        lines += [*_rows(case, mode, connections, summary_by_key), ""]
    return "\n".join(lines)


def _rows(
    case: Case, mode: str, connections: int, summary_by_key: dict[Key, Summary]
) -> Iterable[str]:
    for server in SERVERS:
        for wire in case.wires:
            own = summary_by_key.get((server.name, case.name, wire, mode, connections))
            if own is None:
                continue
            base = summary_by_key.get(
                (BASE, case.name, base_wire(case.name, wire), mode, connections)
            )
            yield _row(get_title(server.name, wire), own, base)


def _row(title: str, own: Summary, base: Summary | None) -> str:
    base = base or NOTHING

    def beside(value: float, reference: float, digits: int) -> str:
        return f"{value:,.{digits}f}" + (f" ({_ratio(value, reference)})" if reference else "")

    cells = [
        beside(own.per_second, base.per_second, 0),
        beside(own.p50, base.p50, 2),
        beside(own.p99, base.p99, 2),
        beside(own.p999, base.p999, 2),
        f"{own.cpu_parent:,.0f}",
        beside(own.cpu_all, base.cpu_all, 0),
        str(own.errors or ""),
    ]
    behind = f" (of {own.rate:,.0f} sent)" if own.rate and own.per_second < 0.97 * own.rate else ""
    return f"| {title}{behind} | " + " | ".join(cells) + " |"


def startup_table(startups: list[Startup]) -> str:
    """Return the time to the first correct response, and the memory after the load."""
    lines = [
        "## Start and memory",
        "",
        "Memory after the load; PSS counts shared pages once. In brackets: ratio to mlserver 2.",
        "",
    ]
    lines += [
        "| case | server | ready s | started process RSS MB | all PSS MB | all RSS MB | processes |"
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    groups: dict[tuple[str, str], list[Startup]] = {}
    for each in startups:
        groups.setdefault((each.case, each.server), []).append(each)
    for (case, server), group in sorted(
        groups.items(), key=lambda item: (item[0][0], list(TITLES).index(item[0][1]))
    ):
        own, base = _start(group), _start(groups.get((case, BASE), []))
        cells = [
            f"{a:,.{digits}f}" + (f" ({_ratio(a, b)})" if b else "")
            for a, b, digits in zip(own, base, (2, 0, 0, 0), strict=True)
        ]
        processes = group[0].memory_after.processes
        lines.append(f"| {case} | {TITLES[server]} | {' | '.join(cells)} | {processes} |")
    return "\n".join(lines) + "\n"


def _start(group: list[Startup]) -> tuple[float, float, float, float]:
    if not group:
        return (0, 0, 0, 0)
    middle = statistics.median
    memories = [each.memory_after for each in group]
    return (
        middle(each.ready for each in group),
        middle(memory.parent_rss for memory in memories),
        middle(memory.all_pss for memory in memories),
        middle(memory.all_rss for memory in memories),
    )


def failure_table(results: Results) -> str:
    """Return the failed measurements with their reasons."""
    if not results.failures:
        return ""
    lines = ["## Not measured", "", "| server | case | wire | reason |", "|---|---|---|---|"]
    seen = dict.fromkeys((f.server, f.case, f.wire, f.reason) for f in results.failures)
    for server, case, wire, reason in seen:
        text = reason.replace("|", "/")[:200]
        lines.append(
            f"| {TITLES.get(server, server)} | {case} | {WIRES.get(wire, wire)} | {text} |"
        )
    return "\n".join(lines) + "\n"


def _ratio(value: float, reference: float | None) -> str:
    if not reference or not value:
        return "-"
    ratio = value / reference
    return f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"


def _connections(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"


def _describe_mode(mode: str, connections: int) -> str:
    if mode == CLOSED:
        return f"Closed loop, {_connections(connections)}"
    return f"Open loop at {mode.removeprefix('open ')} of each server's best rate"


def main() -> None:
    """Write the pages from the newest results of every case."""
    write(read_all(), Starts.read_all())
    ray = RayResults.read_newest()
    if ray is not None:
        write_ray_page(ray)


if __name__ == "__main__":
    main()
