"""Files that `mlserver infer` reads and writes: tables, JSON documents and their names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.infer_command import InferCommand, data, request
from support.models import WINE, Models
from support.server import Serve, clean_environment


@pytest.mark.slow
def test_columns_of_a_csv_file(models: Models, serve: Serve, tmp_path: Path) -> None:
    run = InferCommand(serve(models.copy("wine", tmp_path / "wine")), tmp_path)
    extra = {"note": "kept at home", **WINE}
    rows = [";".join(extra), *(";".join(str(value) for value in extra.values()) for _ in range(5))]
    run.write("in.csv", rows[0], *rows[1:])
    code, text = run("wine", "in.csv", "out.csv", "-s", "2")
    assert code == 0, text
    table = run.table("out.csv")
    assert [list(row) for row in table] == [["quality"]] * 5
    assert [float(row["quality"]) for row in table] == [pytest.approx(models.wine_answer)] * 5
    assert not (run.folder / "out.csv.part").exists()

    run.write("in.csv", "pH,alcohol", "1,2")
    code, text = run("wine", "in.csv", "other.csv")
    assert code == 1
    assert "no column 'fixed acidity'" in text


def test_types_of_csv_cells(run: InferCommand) -> None:
    run.write("in.csv", "i,f,b,s", "1,1,true,a", "2,,false,", "3,1.5,TRUE,7")
    code, text = run("echo", "in.csv", "out.jsonl")
    assert code == 0, text
    kinds = [
        (output["name"], output["datatype"]) for output in run.lines("out.jsonl")[0]["outputs"]
    ]
    assert kinds == [("i", "INT64"), ("f", "FP64"), ("b", "BOOL"), ("s", "BYTES")]
    second = {output["name"]: output["data"] for output in run.lines("out.jsonl")[1]["outputs"]}
    assert second == {"i": [2], "f": [None], "b": [False], "s": [""]}


def test_failed_rows_of_a_table(run: InferCommand) -> None:
    run.write("in.csv", "x", "1", "-1", "3")
    code, text = run("picky", "in.csv", "out.csv")
    assert (code, "1 of 3 failed" in text) == (1, True)
    assert [row["error"] for row in run.table("out.csv")] == ["", "no negative numbers", ""]
    assert [row["double"] for row in run.table("out.csv")] == ["2", "", "6"]
    run.write("in.csv", "x", "1", "2", "3")
    assert run("picky", "in.csv", "out.csv", "--resume")[0] == 0
    assert [row["double"] for row in run.table("out.csv")] == ["2", "4", "6"]


def test_parquet_in_and_out(run: InferCommand) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "f": arrow.array([1.5, None, 3.5], "float32"),
        "i": arrow.array([1, 2, 3], "int16"),
        "s": arrow.array(["a", "b", "c"]),
        "v": arrow.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    }
    parquet.write_table(arrow.table(columns), run.folder / "in.parquet")
    code, text = run("echo", "in.parquet", "out.parquet", "-s", "2", "-b")
    assert code == 0, text
    actual = parquet.read_table(run.folder / "out.parquet").to_pydict()
    assert actual == {
        "f": [1.5, None, 3.5],
        "i": [1, 2, 3],
        "s": ["a", "b", "c"],
        "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    }


@pytest.mark.parametrize(
    "text, answers",
    [
        (json.dumps(request(1), indent=2), [[2.0]]),
        (json.dumps(request(1)), [[2.0]]),
        (json.dumps([request(1), request(2, 3)], indent=2), [[2.0], [4.0, 6.0]]),
        (json.dumps(request(1)) + "\n\n" + json.dumps(request(2)) + "\n", [[2.0], [4.0]]),
        ("\ufeff" + json.dumps(request(1), indent=2), [[2.0]]),
        ("[]", []),
    ],
    ids=[
        "object over lines",
        "one line",
        "list over lines",
        "JSON lines",
        "byte order mark",
        "nothing",
    ],
)
@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_json_documents(
    run: InferCommand, text: str, answers: list[list[float]], more: tuple[str, ...]
) -> None:
    (run.folder / "in.json").write_text(text)
    code, printed = run("picky", "in.json", "out.jsonl", *more)
    assert code == 0, printed
    assert [data(line) for line in run.lines("out.jsonl")] == answers


@pytest.mark.parametrize(
    "text, reason",
    [("{", "in.json: "), ("5", "expected a V2 request or a list of them"), ("", "in.json: ")],
)
def test_an_invalid_json_document(run: InferCommand, text: str, reason: str) -> None:
    (run.folder / "in.json").write_text(text)
    code, printed = run("picky", "in.json", "out.jsonl")
    assert (code, reason in printed, printed.count("\n")) == (1, True, 1), printed


def test_the_sample_request_of_init(serve: Serve, tmp_path: Path) -> None:
    init = [sys.executable, "-m", "mlserver", "init", str(tmp_path / "prices")]
    subprocess.run(init, check=True, capture_output=True, env=clean_environment())
    server = serve(tmp_path / "prices")  # on the ports that the environment variables name
    run = InferCommand(server, tmp_path / "prices")
    code, printed = run("prices", "sample-request.json", "out.json")
    assert code == 0, printed
    assert len(run.lines("out.json")[0]["outputs"][0]["data"]) == 2
    code, printed = run("prices", "sample-rows.csv", "prices.csv")
    assert code == 0, printed
    prices = [row["output-0"] for row in run.table("prices.csv")]
    assert prices == ["151000.0", "351250.0", "221500.0"]
    written = "".join(path.read_text() for path in (tmp_path / "prices").glob("*settings.json"))
    assert "port" not in written


def test_tables_with_tabs(run: InferCommand) -> None:
    (run.folder / "in.tsv").write_text('x\ty, z\n1\ta,b\n2\t"c\td"\n')
    code, printed = run("echo", "in.tsv", "out.tsv")
    assert code == 0, printed
    assert (run.folder / "out.tsv").read_text().splitlines() == ["x\ty, z", "1\ta,b", '2\t"c\td"']


@pytest.mark.parametrize(
    "source, output",
    [
        ("in.jsonl", "out.xlsx"),
        ("in.xlsx", "out.jsonl"),
        ("in.jsonl", "out.feather"),
        ("in.csv.gz", "o"),
    ],
)
def test_file_names_without_a_known_suffix_are_rejected(
    run: InferCommand, source: str, output: str
) -> None:
    run.write(source, request(1))
    code, printed = run("picky", source, output)
    assert code == 1
    assert printed.count("\n") == 1
    assert "expected a name that ends in .csv, .tsv, .parquet" in printed
    assert not (run.folder / output).exists()


@pytest.mark.parametrize("bad, reason", [(request(-1), "no negative numbers"), ("no JSON", "JSON")])
def test_the_first_reason_is_on_standard_error(run: InferCommand, bad: Any, reason: str) -> None:
    run.write("in.jsonl", request(1), bad, request(-5))
    code, printed = run("picky", "in.jsonl", "out.csv", "-w", "1")
    assert code == 1
    last = printed.splitlines()[-1]
    assert "2 of 3 failed, the first (item 1): " in last
    assert reason in last
