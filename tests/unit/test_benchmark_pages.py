"""Pages of benchmarks: written from the results files, with charts that every reader can use."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from benchmarks import plots, report, summary
from benchmarks.cold_results import Start, Starts, tables
from benchmarks.load import Load
from benchmarks.plots import Chart
from benchmarks.ray_results import END, PAGE, START, RayLoad, RayResults
from benchmarks.results import CLOSED, Measurement, Results

RESULTS = Results(machine={}, versions={}, tools={}, table="", seconds=1, rounds=1)


def measured(server: str, case: str, rate: float) -> Measurement:
    load = Load(100, rate, 0, 1.0, 2.0, 3.0)
    return Measurement(server, case, "v2", CLOSED, 16, 0, load, 100.0, 200.0)


def test_the_charts_are_those_of_the_results() -> None:
    for chart in summary.charts(report.read_all()):
        drawn = (report.IMAGES / f"{chart.name}.svg").read_text()
        assert drawn == plots.render(chart, summary.OWN_TITLE)


def test_the_pages_have_the_tables_of_the_results() -> None:
    results = report.read_all()
    assert summary.table(results) in report.SUMMARY_PAGE.read_text()
    assert report.tables(results).rstrip() in report.TABLES_PAGE.read_text()


def test_a_chart_is_valid_and_names_every_server() -> None:
    chart = Chart("c", "Requests < per & second", {"ours": 1234.5, "MLflow's": 2.0}, True, 1)
    root = ElementTree.fromstring(plots.render(chart, "ours"))
    texts = ["".join(element.itertext()) for element in root.iter() if element.text]
    assert texts[1:3] == ["Requests < per & second", "ours"]
    assert "1,234.5" in texts
    assert "MLflow's 2.0" in root.attrib["aria-label"]


@pytest.mark.parametrize("background", ["#ffffff", "#1e2129"])
def test_text_has_enough_contrast_on_light_and_dark_pages(background: str) -> None:
    bright, dark = sorted(map(get_luminance, (plots.TEXT, background)), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) > 3.9


def get_luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear: list[float] = [((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_flavor_is_from_one_run_of_starts() -> None:
    """The newer run has no PyTorch, and one server less for scikit-learn."""
    old = Starts({}, {}, "", 3, date="2026-01-01")
    old.starts = [
        Start("ours", "sklearn-skops", 1, 0, 9.0, 9.0, 9.0),
        Start("mlflow", "sklearn-skops", 1, 0, 9.0, 9.0, 9.0),
        Start("ours", "pytorch", 1, 0, 5.0, 5.0, 5.0),
    ]
    new = replace(old, date="2026-02-02", starts=[replace(old.starts[0], ready=1.0)])
    joined = new.with_earlier(old)
    ready = joined.medians(lambda start: start.ready)
    assert ready == {("ours", "sklearn-skops", 1): 1.0, ("ours", "pytorch", 1): 5.0}
    assert "measured on 2026-01-01: PyTorch\n" in tables(joined)


def test_a_case_is_from_one_run() -> None:
    old = replace(
        RESULTS,
        date="2026-01-01",
        notes={"busy": "disturbed", "sum": "kept"},
        measurements=[measured(s, c, 1.0) for s in ("ours", "kserve") for c in ("busy", "sum")],
    )
    new = replace(RESULTS, date="2026-02-02", measurements=[measured("ours", "busy", 2.0)])
    merged = new.with_earlier(old)
    keys = [(each.server, each.case) for each in merged.measurements]
    assert keys == [("ours", "busy"), ("ours", "sum"), ("kserve", "sum")]
    assert (merged.get_date("busy"), merged.get_date("sum")) == ("2026-02-02", "2026-01-01")
    assert merged.notes == {"sum": "kept"}


def test_the_best_of_a_row_is_bold() -> None:
    results = replace(
        RESULTS, measurements=[measured("ours", "busy", 20.0), measured("kserve", "busy", 30.0)]
    )
    assert "| 20 | **30** |" in summary.table(results)


def test_the_table_of_starts_compares_with_this_server() -> None:
    starts = [
        Start("ours", "xgboost", 1, 0, 2.0, 1.0, 100.0),
        Start("mlserver1", "xgboost", 1, 0, 4.0, 3.0, 150.0),
        Start("ours", "xgboost", 11, 0, 3.0, 2.0, 120.0),
    ]
    text = tables(Starts({}, {}, "", 1, starts=starts))
    assert "| MLServer 1.7.1 | 3.00 (3.00x) |" in text
    assert "| 11 | mlserver 2 | 3.00 (1.00x) | 2.00 (1.00x) | 120 (1.00x) | 100 | 2.00 |" in text


def test_the_tables_of_the_ray_engine() -> None:
    rates = {"default": 10.0, "tuned": 20.0, "throughput": 40.0, "ray": 200.0, "local": 250.0}
    results = RayResults({"cores": "2"}, {"ray": "2.60.0"}, seconds=5, rounds=1)
    for server, rate in rates.items():
        load = Load(100, rate, 0, 1000 / rate, 2.0, 3.0)
        results.loads.append(RayLoad(server, "wine", 1, 0, load))
    text = results.format()
    assert "| server | 1 conn. |" in text
    assert "| engine `ray` | 200 (5.0) |" in text
    assert "| engine `ray`, times the best plain Ray Serve | 5.0 |" in text
    assert text.endswith("The hop at 1 connection, `wine`: 5.00 - 4.00 = 1.00 ms.")
    assert "1,000 x 100" not in text  # not measured


def test_the_page_of_the_ray_engine_has_the_newest_tables() -> None:
    page = PAGE.read_text()
    assert page.count(START) == page.count(END) == 1
    results = RayResults.read_newest()
    if results is not None:
        assert results.format() in page
