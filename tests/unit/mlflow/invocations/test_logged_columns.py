"""Columns of scoring bodies and results, as the payload log reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlserver_mlflow.invocations import HEADER, read_columns

AS_CSV = {HEADER: "text/csv; charset=utf-8"}
AS_JSON = {HEADER: "application/json"}


@pytest.mark.parametrize(
    ("document", "columns"),
    [
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]}},
            {"a": [1, 2], "b": ["x", None]},
        ),
        (
            {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3}]},
            {"a": [1, 3], "b": [2, None]},
        ),
        ({"inputs": {"a": [1, 2]}}, {"a": [1, 2]}),
        ({"instances": [{"a": 1}], "params": {"k": 3}}, {"a": [1], "k": [3]}),
        (
            {"messages": [{"role": "user"}], "temperature": 0},
            {"messages": [[{"role": "user"}]], "temperature": [0]},
        ),
        ({"predictions": [1.5, 2.5]}, {"predictions": [1.5, 2.5]}),
        ({"predictions": [{"a": 1}, {"a": 2}]}, {"a": [1, 2]}),
        ({"predictions": "text"}, {"predictions": ["text"]}),
        # Names of columns that are unknown, or not one per value.
        ({"inputs": [[1, 2]]}, None),
        ({"dataframe_split": {"data": [[1, 2]]}}, None),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, None),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, None),
        ([1, 2], None),
    ],
)
def test_json_bodies(document: Any, columns: Any) -> None:
    assert read_columns(AS_JSON, json.dumps(document).encode()) == columns


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1,x\n2,\n", {"a": ["1", "2"], "b": ["x", None]}),
        ('\ufeffa\r\n"1,5"\r\n', {"a": ["1,5"]}),
        ("a,a\n1,2\n", None),
        ("a\n1,2\n", None),
        ('a\n"1', None),
        ("", None),
    ],
)
def test_csv_bodies(text: str, columns: Any) -> None:
    assert read_columns(AS_CSV, text.encode()) == columns


@pytest.mark.parametrize("body", [b"\xff", b"{", b"PAR1"])
def test_what_is_not_read(body: bytes) -> None:
    for parameters in (AS_CSV, AS_JSON, {HEADER: "application/vnd.apache.parquet"}):
        columns = read_columns(parameters, body)
        assert columns is None or (parameters is AS_CSV and not any(columns.values()))
