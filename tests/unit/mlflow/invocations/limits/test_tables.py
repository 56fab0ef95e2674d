"""Tables of few bytes and many cells are refused; tables as clients send them are accepted."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from mlserver_mlflow.invocations.limits.tables import check_csv, check_json, check_parquet

MANY = 15_000


def row(count: int) -> list[int]:
    return [1] * count


BOMBS: dict[str, bytes | dict[str, Any]] = {
    "csv: a wide header over short rows": b"," * MANY + b"\n" + b"1\n" * MANY,
    "csv: a wide row over short rows": b"a\n" + b"," * MANY + b"\n" + b"1\n" * MANY,
    "csv: quotes and blank lines before the header": b' \n\nx"'
    + b"," * 900
    + b'\n"\n"'
    + b"1\n" * MANY,
    "csv: carriage returns only": b"," * 900 + b"\r" + b"1\r" * MANY,
    "csv: more columns than any model takes": b"," * MANY,
    "split: one long row": {
        "dataframe_split": {"columns": ["a"], "data": [row(900)] + [[]] * MANY}
    },
    "split: more columns than any model takes": {
        "dataframe_split": {"columns": ["a"] * MANY, "data": []}
    },
    "records: a key in each row": {
        "dataframe_records": [{f"c{number}": 1} for number in range(900)]
    },
    "instances: a key in each row": {"instances": [{f"c{number}": 1} for number in range(900)]},
    "inputs: more columns than any model takes": {
        "inputs": {f"c{number}": [1] for number in range(MANY)}
    },
    "csv: columns without rows": b"," * 600,
    "csv: columns without rows, and a line of blanks": b"," * 600 + b"\n \t\n",
    "csv: columns without rows, and an odd end of line": b"," * 600 + b"\n\r,",
    "csv: a level of the index for each comma": b"a\n" + b"," * 200,
    "csv: a level of the index after an odd end of line": b"\r," + b"\r" + b"," * 200,
    "csv: quotes that break every line": b"c" + b',"\n"' * 900 + b"\n" + b"1\n" * 5000,
    "split: columns without rows": {"dataframe_split": {"columns": ["a"] * 600, "data": []}},
    "split: levels of columns": {"dataframe_split": {"columns": [[1]] * 300, "data": []}},
    "split: levels of rows": {
        "dataframe_split": {"columns": ["a"], "index": [[1]] * 300, "data": [[1]]}
    },
    "split: labels of empty objects": {
        "dataframe_split": {"columns": row(900), "data": [{}] * 900}
    },
    "split: labels of nothing": {
        "dataframe_split": {"columns": row(900), "index": row(900), "data": {}}
    },
    "split: a key in each row": {
        "dataframe_split": {"data": [{f"c{number}": 1} for number in range(900)]}
    },
    "split: a row in each column": {
        "dataframe_split": {"data": {f"c{at}": {str(at): 1} for at in range(900)}}
    },
    "split: one long column beside numbers": {
        "dataframe_split": {"data": {"a": row(9000), **{f"c{number}": 1 for number in range(900)}}}
    },
    "records: a long row over short ones": {"dataframe_records": [row(900), *([[]] * MANY)]},
}


def check(body: bytes | dict[str, Any], model_columns: int) -> None:
    if isinstance(body, bytes):
        check_csv(body, model_columns)
    else:
        text = json.dumps(body)
        check_json(text, model_columns)
        check_json(text.encode(), model_columns)


@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.parametrize("model_columns", [0, 3])
def test_a_table_with_more_cells_than_values_is_refused(case: str, model_columns: int) -> None:
    with pytest.raises(ValueError, match=r"Invalid input\. The table has \d+ (rows|columns)"):
        check(BOMBS[case], model_columns)


WIDE = ",".join(f"c{number}" for number in range(2000))
GOOD: dict[str, tuple[bytes | dict[str, Any], int]] = {
    "csv": (b"a,b,c\n" + b"1,2,x\n" * MANY, 3),
    "csv with blank lines": (b"a,b,c\r\n\r\n" * MANY, 3),
    "csv with texts of several lines": (b'a,b\n1,"x,\n,\n,y"\n' * MANY, 2),
    "csv of carriage returns": (b"a,b,c\r" * MANY, 3),
    "csv as wide as the model": ((WIDE + "\n" + WIDE + "\n").encode(), 2000),
    "no csv": (b"", 0),
    "csv without rows": (WIDE.encode(), 2000),
    "csv with an index": (b"a,b\n" + b"x,y,1,2\n" * MANY, 2),
    "csv with a text of many commas": (
        b"a,b\n" + b"1,x\n" * MANY + b'1,"' + b"," * 900 + b'"\n',
        2,
    ),
    "records": ({"dataframe_records": [{"a": 1, "b": 2}] * MANY}, 2),
    "records with missing keys": ({"dataframe_records": [{"a": 1}, {"b": 2}, {"c": 3}] * MANY}, 3),
    "split": ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]] * MANY}}, 2),
    "instances": ({"instances": [row(28)] * 2000}, 0),
    "numbers": ({"instances": row(MANY)}, 0),
    "columns": ({"inputs": {"a": row(MANY), "b": row(MANY)}}, 2),
    "an object of one long column and options": (
        {"inputs": {"a": row(MANY), **{f"o{at}": 1 for at in range(20)}}},
        21,
    ),
    "split with an index": (
        {"dataframe_split": {"index": row(2000), "columns": ["a", "b"], "data": [[1, 2]] * 2000}},
        2,
    ),
    "split with levels": (
        {"dataframe_split": {"columns": [row(300), row(300)], "data": [row(300)] * 10}},
        300,
    ),
    "of no form": ({"dataframe_split": "x" * 5000, "instances": None}, 0),
}


@pytest.mark.parametrize("case", GOOD)
def test_an_ordinary_table_is_accepted(case: str) -> None:
    check(*GOOD[case])


@pytest.mark.parametrize(
    "body",
    [b"[" * 30_000, b"{" * 5000, b'{"instances": [NaN' + b", 1" * 5000 + b"]}", b"[1]" * 2000],
)
def test_invalid_json_is_ignored(body: bytes) -> None:
    check_json(body, 0)


def parquet(table: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    options = {"compression": "zstd", "store_schema": False} | options
    write_table(pa.table(table), sink, **options)
    return sink.getvalue()


NUMERIC_TYPES = np.random.default_rng(1).random(100_000)
TEXT, TEXTS = "x" * 10_000, ["x" * 10_000] * 2000
PARQUET: dict[str, dict[str, Any]] = {
    "numbers": {"a": NUMERIC_TYPES, "b": range(100_000)},
    "words": {"a": [f"word {number % 100}" for number in range(100_000)]},
    "one word": {"a": ["x" * 30] * 50_000},
    "nested": {"a": [{"k": [1, 2]}, {"k": []}], "b": [["x"], None], "c": [None, "x"]},
    "no rows": {"a": pa.array([], pa.float64())},
    "levels of texts": {"a": [[["x", "y"]] * 500] * 10, "b": [[{"k": "x" * 50}]] * 10},
}


@pytest.mark.parametrize("case", PARQUET)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_ordinary_parquet_table_is_accepted(case: str, version: str) -> None:
    """Values may look like commas and line ends."""
    check_parquet(parquet(PARQUET[case], data_page_version=version), 2)
    check_parquet(parquet(PARQUET[case], data_page_version=version, compression="none"), 2)
    check_parquet(b"no parquet", 2)


PARQUET_BOMBS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rows": ({"a": np.zeros(5_000_000)}, {}, "5000000 rows"),
    "columns": ({f"c{number}": [1] for number in range(1500)}, {}, "1500 columns"),
    "values in a row": ({"a": [np.zeros(1_000_000)]}, {}, "more than [0-9]+ values"),
    "values in levels": ({"a": [[np.zeros(1000)] * 1000]}, {}, "more than [0-9]+ values"),
    "a long text": ({"a": ["x" * 9_000_000]}, {"use_dictionary": False}, "pages have more"),
    "texts of one entry": ({"a": TEXTS}, {}, "texts have more"),
    "texts in lists": ({"a": [TEXTS]}, {}, "texts have more"),
    "texts in maps": (
        {
            "a": pa.array(
                [[(str(at), TEXT) for at in range(2000)]], pa.map_(pa.string(), pa.string())
            )
        },
        {},
        "texts have more",
    ),
    "texts in objects": ({"a": [{"k": TEXT}] * 2000}, {}, "texts have more"),
    "bytes of one length": (
        {"a": pa.array([TEXT.encode()] * 2000, pa.binary(10_000))},
        {},
        "texts may have more",
    ),
    "prefixes": (
        {"a": TEXTS},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        "texts may have more",
    ),
}


@pytest.mark.parametrize("case", PARQUET_BOMBS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_parquet_file_that_decodes_to_much_is_refused(case: str, version: str) -> None:
    table, options, message = PARQUET_BOMBS[case]
    with pytest.raises(ValueError, match=rf"Invalid input\. .*{message}"):
        check_parquet(parquet(table, data_page_version=version, **options), 3)


def test_a_changed_parquet_file_is_refused_or_accepted() -> None:
    """Changed bytes never raise another exception than ValueError."""
    body, rng = parquet(PARQUET["nested"]), random.Random(1)
    refused = 0
    for _ in range(3000):
        changed = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(
                (0, 1, 127, 128, 255, rng.randrange(256))
            )
        try:
            check_parquet(bytes(changed), 3)
        except ValueError:
            refused += 1
    assert refused
