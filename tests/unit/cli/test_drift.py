"""`mlserver drift`: statistics against Evidently's, reading of logs, table, page and exit code."""

from __future__ import annotations

import gzip
import html.parser
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlserver.cli.drift import DRIFTED, command
from mlserver.cli.drift_report.statistics import ColumnDrift, compare, population_stability_index
from support import evidently_psi

ORACLE = json.loads(Path(evidently_psi.__file__).with_suffix(".json").read_text())
SHIFTED = 0.2  # from this PSI on the verdict is "shifted"


def compare_values(reference: list[Any], logged: list[Any], narrow: bool = False) -> ColumnDrift:
    return compare("x", reference, logged, narrow, 10)


@pytest.mark.parametrize("name", ORACLE["columns"])
def test_psi_is_evidentlys(name: str) -> None:
    """Recorded by `tests/support/evidently_psi.py`."""
    column, expected = ORACLE["columns"][name], ORACLE["psi"][name]
    drift = compare_values(column["reference"], column["logged"])
    assert drift.psi == pytest.approx(expected.get("binned", expected["own"]), rel=1e-9)
    assert (drift.verdict == "shifted") == (expected["own"] >= SHIFTED) == ("same" not in name)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("evidently") is None,
    reason="needs Evidently, which has an environment of its own: see evidently_psi.py",
)
def test_evidently_still_gives_the_recorded_values() -> None:
    for name, values in evidently_psi.compute().items():
        assert values == pytest.approx(ORACLE["psi"][name], rel=1e-9)


def test_equal_shares_have_psi_0() -> None:
    shares = np.array([0.5, 0.5, 0.0])
    assert population_stability_index(shares, shares) == 0
    values = [float(number) for number in range(100)]
    assert compare_values(values, values).psi == 0


def test_missing_invalid_and_outside_values_have_rates() -> None:
    reference = [float(number) for number in range(100)]
    drift = compare_values([*reference, None], [*reference, None, None, "text", 150.0])
    assert drift.kind == "number"
    assert drift.missing == pytest.approx(2 / 104)
    assert drift.reference_missing == pytest.approx(1 / 101)
    assert drift.invalid == pytest.approx(1 / 102)
    assert drift.outside == pytest.approx(1 / 101)
    drift = compare_values(["a", "b"] * 10, ["a", "b", "c", "d"])
    assert (drift.kind, drift.outside) == ("category", 0.5)


def test_numbers_of_32_bits_are_in_the_bins_of_their_values() -> None:
    """0.1 as FP32 is above 0.1, which may be the edge of a bin."""
    reference = [number / 10 for number in range(30)] * 20
    logged = np.array(reference, dtype=np.float32).astype(float).tolist()
    drift = compare_values(reference, logged, narrow=True)
    assert drift.psi == 0
    assert drift.outside == 0


@pytest.mark.parametrize(
    ("reference", "logged"),
    [
        ([1.0, 2.0], ["1.0", "2"]),  # a CSV body
        (["True", "False"], [True, False]),  # a CSV reference
        ([True, False], [True, False]),
        ([{"a": 1}, [2]], [{"a": 1}, [2]]),
    ],
)
def test_equal_values_of_other_formats_are_equal(reference: Any, logged: Any) -> None:
    assert compare_values(reference, logged).psi == pytest.approx(0)


def test_a_column_without_values_is_not_compared() -> None:
    drift = compare_values([1.0, 2.0], [None, None])
    assert (drift.psi, drift.verdict, drift.note) == (None, "not compared", "no values in the log")
    assert compare_values([None], [1.0]).note == "no values in the reference"


# -- logs and the command --


def request_line(values: dict[str, Any], model: str = "m", **fields: Any) -> str:
    """A line of a request of one row."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in values.items()
    ]
    event = {"time": "2026-01-01T00:00:00.000000Z", "type": "request", "model": model}
    return json.dumps(event | {"id": "r", "version": None, "inputs": inputs} | fields)


def response_line(value: float, name: str = "y") -> str:
    event = {"time": "2026-01-01T00:00:01.000000Z", "type": "response", "model": "m", "id": "r"}
    output = {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}
    return json.dumps(event | {"version": None, "outputs": [output]})


def write_files(folder: Path, shift: float = 0.0) -> tuple[str, str]:
    """Write a log in three files and a reference. Returns their paths."""
    random = np.random.default_rng(5)
    rows = [
        {"a": float(a + shift), "b": float(b)}
        for a, b in zip(random.normal(0, 1, 600), random.normal(5, 2, 600), strict=True)
    ]
    lines = [
        line for row in rows for line in (request_line(row), response_line(row["b"] + 3 * shift))
    ]
    (folder / "log.jsonl").write_text("\n".join(lines[:400]) + "\n")
    (folder / "log.jsonl.1").write_text("\n".join(lines[400:800]) + '\n{"time": "torn')
    with gzip.open(folder / "log.jsonl.w2.1.gz", "wt") as file:
        file.write("\n".join(lines[800:]))
    (folder / "log.jsonl.notes").write_text("not a log")
    table = ["a;b;prediction"]
    table += [
        f"{a};{b};{b}"
        for a, b in zip(random.normal(0, 1, 900), random.normal(5, 2, 900), strict=True)
    ]
    (folder / "reference.csv").write_text("\n".join(table))
    return str(folder / "log.jsonl"), str(folder / "reference.csv")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_all_files_of_a_log_are_read(tmp_path: Path) -> None:
    log, reference = write_files(tmp_path)
    result = run(log, "--reference", reference, "--json", "--fail-above", "0.2")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["requests"], document["rows"], document["skipped_lines"]) == (600, 600, 1)
    assert {column["name"]: column["verdict"] for column in document["inputs"]} == {
        "a": "stable",
        "b": "stable",
    }
    (output,) = document["outputs"]
    assert (output["name"], output["verdict"]) == ("y", "stable")


def test_a_shift_is_in_table_and_page_and_sets_the_exit_code(tmp_path: Path) -> None:
    log, reference = write_files(tmp_path, shift=1.0)
    page = tmp_path / "drift.html"
    result = run(log, "--reference", reference, "--html", str(page), "--fail-above", "0.2")
    assert result.exit_code == DRIFTED
    assert result.stderr == "PSI above 0.2: a, y\n"
    line = next(line for line in result.stdout.splitlines() if line.startswith("a "))
    assert "shifted" in line
    text = page.read_text()
    assert "2 of 3 columns have shifted: a, y" in text
    assert text.count("<svg") == 3
    for loaded in ("http:", "https:", "<script", "src=", "@import", "url("):
        assert loaded not in text
    html.parser.HTMLParser().feed(text)


def test_names_and_values_are_shown_as_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    (tmp_path / "log").write_text(request_line({attack: attack}, model=attack))
    (tmp_path / "reference.csv").write_text(f"{attack}\n{attack}\nx\n")
    page = tmp_path / "drift.html"
    result = run(
        str(tmp_path / "log"), "--reference", str(tmp_path / "reference.csv"), "--html", str(page)
    )
    assert result.exit_code == 0, result.output
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


def test_a_matrix_is_read_by_the_references_columns(tmp_path: Path) -> None:
    tensor = {"name": "rows", "shape": [2, 2], "datatype": "FP32", "data": [1, 10, 2, 20]}
    (tmp_path / "log").write_text(request_line({}, inputs=[tensor]))
    (tmp_path / "reference.csv").write_text("a,b\n1,10\n2,20\n")
    result = run(str(tmp_path / "log"), "--reference", str(tmp_path / "reference.csv"), "--json")
    columns = json.loads(result.stdout)["inputs"]
    assert [(column["name"], column["mean"]) for column in columns] == [("a", 1.5), ("b", 15)]


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    masked = {"name": "b", "shape": [1], "datatype": "FP64", "parameters": {"masked": "by name"}}
    large = {"name": "c", "shape": [9], "datatype": "FP64", "parameters": {"omitted_bytes": 72}}
    known = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}
    new = {"name": "new", "shape": [1], "datatype": "FP64", "data": [1.0]}
    failed = {"type": "response", "model": "m", "time": "2026", "error": {"status": 500}}
    lines = [request_line({}, inputs=[known, masked, large, new]), json.dumps(failed)]
    (tmp_path / "log").write_text("\n".join([*lines, response_line(1.0)]))
    (tmp_path / "reference.csv").write_text("a,b,c\n1,2,3\n")
    result = run(str(tmp_path / "log"), "--reference", str(tmp_path / "reference.csv"))
    for text in (
        "masked in the log",
        "not in the log",
        "no such column in the reference: name one with --prediction",
        "Inputs that the reference does not have: 'new' (100.0% of rows)",
        "Failed requests: 1",
        "Tensors without data: 1, larger than 'payload_log.max_bytes'",
    ):
        assert text in result.stdout, result.stdout


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    log, reference = write_files(tmp_path)
    (tmp_path / "two").write_text(request_line({"a": 1.0}) + "\n" + request_line({}, model="n"))
    (tmp_path / "empty.csv").write_text("a,b\n")
    (tmp_path / "uneven.csv").write_text("a,b\n1\n")
    (tmp_path / "wrong.parquet").write_text("no")
    two = str(tmp_path / "two")
    for arguments, text in [
        ((str(tmp_path / "gone"), "--reference", reference), "expected a payload log"),
        ((two, "--reference", reference), "--model: expected one of m, n"),
        ((two, "--reference", reference, "-m", "x"), "expected events of the model 'x'"),
        (
            (log, "--reference", reference, "--prediction", "z"),
            "expected a column of reference.csv",
        ),
        ((log, "--reference", str(tmp_path / "empty.csv")), "expected a table with rows"),
        (
            (log, "--reference", str(tmp_path / "uneven.csv")),
            "line 2: expected 2 values, received 1",
        ),
        ((log, "--reference", str(tmp_path / "wrong.parquet")), "cannot be read as Parquet"),
        ((log, "--reference", reference, "--html", str(tmp_path)), "is a directory"),
    ]:
        result = run(*arguments)
        assert result.exit_code in (1, 2)
        assert text in result.output, result.output


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = write_files(tmp_path)
    (tmp_path / "reference.parquet").write_text("")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    result = run(log, "--reference", str(tmp_path / "reference.parquet"))
    assert "pip install 'mlserver[arrow]'" in result.output
