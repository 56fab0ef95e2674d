"""Tables of few bytes and many cells are refused; tables that people send are not."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlserver_mlflow.bounds import check_csv, check_json, check_parquet

MANY = 15_000


def row(count: int) -> list[int]:
    return [1] * count


BOMBS: dict[str, bytes | dict[str, Any]] = {
    "csv: a wide header over short rows": b"," * MANY + b"\n" + b"1\n" * MANY,
    "csv: a wide row over short rows": b"a\n" + b"," * MANY + b"\n" + b"1\n" * MANY,
    "csv: quotes and blank lines before the header": b' \n\nx"' + b"," * 900 + b'\n"\n"' + b"1\n" * MANY,
    "csv: carriage returns only": b"," * 900 + b"\r" + b"1\r" * MANY,
    "csv: more columns than any model takes": b"," * MANY,
    "split: one long row": {"dataframe_split": {"columns": ["a"], "data": [row(900)] + [[]] * MANY}},
    "split: more columns than any model takes": {"dataframe_split": {"columns": ["a"] * MANY, "data": []}},
    "records: a key in each row": {"dataframe_records": [{f"c{number}": 1} for number in range(900)]},
    "instances: a key in each row": {"instances": [{f"c{number}": 1} for number in range(900)]},
    "inputs: more columns than any model takes": {"inputs": {f"c{number}": [1] for number in range(MANY)}},
}


def check(body: bytes | dict[str, Any], names: int) -> None:
    if isinstance(body, bytes):
        check_csv(body, names)
    else:
        text = json.dumps(body)
        check_json(text, names)
        check_json(text.encode(), names)


@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.parametrize("names", [0, 3])
def test_bombs(case: str, names: int) -> None:
    with pytest.raises(ValueError, match=r"Invalid input\. The table has \d+ (rows|columns)"):
        check(BOMBS[case], names)


WIDE = ",".join(f"c{number}" for number in range(2000))
GOOD: dict[str, tuple[bytes | dict[str, Any], int]] = {
    "csv": (b"a,b,c\n" + b"1,2,x\n" * MANY, 3),
    "csv with blank lines": (b"a,b,c\r\n\r\n" * MANY, 3),
    "csv with texts of several lines": (b'a,b\n1,"x,\n,\n,y"\n' * MANY, 2),
    "csv of carriage returns": (b"a,b,c\r" * MANY, 3),
    "csv as wide as the model": ((WIDE + "\n" + WIDE + "\n").encode(), 2000),
    "no csv": (b"", 0),
    "records": ({"dataframe_records": [{"a": 1, "b": 2}] * MANY}, 2),
    "records with missing keys": ({"dataframe_records": [{"a": 1}, {"b": 2}, {"c": 3}] * MANY}, 3),
    "split": ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]] * MANY}}, 2),
    "instances": ({"instances": [row(28)] * 2000}, 0),
    "numbers": ({"instances": row(MANY)}, 0),
    "columns": ({"inputs": {"a": row(MANY), "b": row(MANY)}}, 2),
    "of no form": ({"dataframe_split": "x" * 5000, "instances": None}, 0),
}


@pytest.mark.parametrize("case", GOOD)
def test_tables(case: str) -> None:
    check(*GOOD[case])


@pytest.mark.parametrize(
    "body", [b"[" * 30_000, b"{" * 5000, b'{"instances": [NaN' + b", 1" * 5000 + b"]}", b"[1]" * 2000]
)
def test_what_is_no_document_is_left_to_the_reader(body: bytes) -> None:
    check_json(body, 0)


def parquet(table: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pd.DataFrame(table).to_parquet(sink)
    return sink.getvalue()


def test_parquet() -> None:
    """Bytes of a real table look like commas and lines, and mean neither."""
    check_parquet(parquet({"a": np.random.default_rng(1).random(100_000), "b": range(100_000)}), 2)
    check_parquet(b"no parquet", 2)
    with pytest.raises(ValueError, match="rows"):
        check_parquet(parquet({"a": [0.0] * 5_000_000}), 1)
    with pytest.raises(ValueError, match="columns"):
        check_parquet(parquet({f"c{number}": [1] for number in range(1500)}), 3)
