"""Forms of bodies for `/invocations`, and borderline values of every type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Case:
    model: str
    body: bytes
    content_type: str = JSON

    def __str__(self) -> str:
        kind = "" if self.content_type == JSON else f" {self.content_type}"
        return f"{self.model}{kind} {self.body[:90].decode('ascii', 'backslashreplace')}"


def case(model: str, body: Any, content_type: str = JSON) -> Case:
    if isinstance(body, bytes):
        return Case(model, body, content_type)
    return Case(
        model, body.encode() if isinstance(body, str) else json.dumps(body).encode(), content_type
    )


ROW = [1, 2.5, -0.5]
ABC = ["a", "b", "c"]


def split(rows: Any, columns: Any = None) -> dict[str, Any]:
    value = {"data": rows} if columns is None else {"columns": columns, "data": rows}
    return {"dataframe_split": value}


def rows_of_three() -> Iterator[Any]:
    """Bodies for three double columns a, b, c."""
    yield from _split_forms()
    yield from _record_forms()
    yield from _input_forms()
    yield from _instance_forms()


def _split_forms() -> Iterator[Any]:
    yield split([ROW], ABC)
    yield split([ROW, [4, 5, 6], [1e-7, 1e20, 0.1]], ABC)
    yield split([[0.1 * i, i, -i] for i in range(100)], ABC)
    yield split([["1", 2, "3.5"]], ABC)
    yield split([["x", 2, 3]], ABC)
    yield split([[None, 2, 3]], ABC)
    yield split([[True, 2, False]], ABC)
    yield split([[10**20, 2, 3]], ABC)
    yield split([[2**63, 2, 3]], ABC)
    yield split([[9007199254740993, 2, 3]], ABC)
    yield split([[10**400, 2, 3]], ABC)
    yield split([[3, 2, 1]], ["c", "b", "a"])
    yield split([[3, 2, 1, 9]], ["c", "b", "a", "z"])
    yield split([[3, 2]], ["c", "b"])
    yield split([[1, 2, 3]], ["a", "b", "b"])
    yield split([[1, 2, 3]], ["a", "b", "d"])
    yield split([[1, 2, 3]], ["a", "b", 3])
    yield split([[1, 2, 3]], "abc")
    yield split([[1, 2, 3]], None)
    yield split([[1, 2]], ABC)
    yield split([[1, 2, 3], [1, 2]], ABC)
    yield split([[1, 2, 3, 4]], ABC)
    yield split([[1, 2, [3]]], ABC)
    yield split([], ABC)
    yield split(None, ABC)
    yield split([1, 2, 3], ABC)
    yield split({"a": [1], "b": [2], "c": [3]}, ABC)
    yield {"dataframe_split": {"columns": ABC, "data": [ROW], "index": [7]}}
    yield {"dataframe_split": {"columns": ABC, "data": [ROW], "dtype": "f8"}}
    yield {"dataframe_split": {"columns": ABC}}
    yield {"dataframe_split": [ROW]}
    yield {"dataframe_split": None}
    yield {"dataframe_split": "x"}


def _record_forms() -> Iterator[Any]:
    yield {"dataframe_records": [{"a": 1, "b": 2.5, "c": -0.5}]}
    yield {"dataframe_records": [{"c": 1, "b": 2.5, "a": -0.5}, {"a": 1, "b": 2, "c": 3}]}
    yield {"dataframe_records": [{"a": 1, "b": 2.5, "c": 3, "z": 4}]}
    yield {"dataframe_records": [{"a": 1, "b": 2.5}]}
    yield {"dataframe_records": [{"a": 1, "b": 2.5, "c": 3}, {"a": 1, "b": 2.5}]}
    yield {"dataframe_records": [{"a": 1, "b": 2.5, "c": 3}, 5]}
    yield {"dataframe_records": [[1, 2, 3]]}
    yield {"dataframe_records": []}
    yield {"dataframe_records": {"a": 1}}
    yield {"dataframe_records": None}


def _input_forms() -> Iterator[Any]:
    yield {"inputs": {"a": [1], "b": [2.5], "c": [-0.5]}}
    yield {"inputs": {"c": [1, 2], "b": [2.5, 3], "a": [-0.5, 4]}}
    yield {"inputs": {"a": 1, "b": 2.5, "c": 3}}
    yield {"inputs": {"a": [1], "b": 2.5, "c": 3}}
    yield {"inputs": {"a": [1], "b": [2.5]}}
    yield {"inputs": {"a": [1], "b": [2.5], "c": [1, 2]}}
    yield {"inputs": {"a": [1], "b": [2.5], "c": [3], "z": [4]}}
    yield {"inputs": {"a": [[1]], "b": [2.5], "c": [3]}}
    yield {"inputs": {"a": ["1"], "b": [2.5], "c": [None]}}
    yield {"inputs": {"a": ["x"], "b": [2.5], "c": [3]}}
    yield {"inputs": {"a": [], "b": [], "c": []}}
    yield {"inputs": {}}
    yield {"inputs": [{"a": 1, "b": 2.5, "c": -0.5}]}
    yield {"inputs": [{"a": 1, "b": 2.5, "c": -0.5}, {"c": 1, "b": 2, "a": 3}]}
    yield {"inputs": [{"a": 1, "b": 2.5}, {"c": 1, "b": 2, "a": 3}]}
    yield {"inputs": [{"a": [1], "b": 2.5, "c": 3}]}
    yield {"inputs": [ROW]}
    yield {"inputs": [1]}
    yield {"inputs": 5}
    yield {"inputs": []}
    yield {"inputs": "x"}
    yield {"inputs": None}


def _instance_forms() -> Iterator[Any]:
    yield {"instances": [{"a": 1, "b": 2.5, "c": -0.5}]}
    yield {"instances": [{"a": 1, "b": 2.5, "c": -0.5}, {"c": 1, "b": 2, "a": 3}]}
    yield {"instances": [{"a": 1, "b": 2.5, "c": -0.5}, {"c": 1, "b": 2}]}
    yield {"instances": {"a": [1], "b": [2.5], "c": [-0.5]}}
    yield {"instances": {"a": [1], "b": [2.5], "c": [1, 2]}}
    yield {"instances": [ROW]}
    yield {"instances": []}


def envelopes() -> Iterator[Any]:
    """Bodies that are invalid, unusual or barely valid before their data is parsed."""
    good = json.dumps(split([ROW], ABC))
    yield b""
    yield b"{"
    yield b"[]"
    yield b"[1]"
    yield b"5"
    yield b"null"
    yield b"{}"
    yield b'{"columns": ["a"], "data": [[1]]}'
    yield b'{"inputs": [1], "instances": [1]}'
    yield good + "x"
    yield good.encode("utf-16")
    yield b"\xef\xbb\xbf" + good.encode()
    yield b"\xff\xfe\xfa"
    yield f" \n{good}\t"
    yield good.replace("2.5", "NaN")
    yield good.replace("2.5", "Infinity")
    yield good.replace("2.5", "1e400")
    yield good.replace("2.5", "-0.0")
    yield good.replace("2.5", "1e-320")
    yield good.replace("2.5", "-0")
    yield good.replace("2.5", "02")
    yield good.replace('"data"', '"data": 1, "data"')
    yield split([ROW], ABC) | {"params": {"x": 1}}
    yield split([ROW], ABC) | {"params": None}
    yield split([ROW], ABC) | {"params": 5}
    yield split([ROW], ABC) | {"signature_name": "x"}
    yield split([ROW], ABC) | {"client_request_id": "x", "stream": True}
    yield split([ROW], ABC) | {"messages": []}
    yield split([ROW], ABC) | {"prompt": "x"}
    yield split([ROW], ABC) | {"input": "x"}
    yield {"prompt": "x", "a": 1, "b": 2.0, "c": 3}
    yield {"input": "x", "a": 1.0, "b": 2.0, "c": 3.5}


CONTENT_TYPES = [
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json; charset=latin-1",
    'application/json; charset="utf-8"',
    "application/json;",
    "application/json; foo=bar",
    "application/json; Charset=utf-8",
    "application/json ; charset=utf-8",
    "Application/JSON",
    "text/json",
    "text/plain",
    "application/pdf",
    "*/*",
    "",
]

VALUES: dict[str, list[Any]] = {
    "boolean": [True, False, 1, 2, 0.5, 0, "true", "", None, [True]],
    "integer": [1, 1.0, "1", True, 1.5, "1.5", None, 2**31, -(2**31), 2**40, 1e10, [1]],
    "long": [1, 1.0, 1.5, "7", True, 1e18, 2**63 - 1, 2**63, 2**64, None, "x"],
    "float": [
        1,
        1.5,
        "2.5",
        True,
        "nan",
        1e40,
        16777217,
        2**53 + 1,
        9007199791611905,
        None,
        0.1,
        1e-50,
    ],
    "double": [
        1,
        1.5,
        "NaN",
        "inf",
        True,
        2**53 + 1,
        10**20,
        None,
        "x",
        [1],
        "1_000",
        " 7.4 ",
        "0x10",
        {"k": 1},
    ],
    "string": ["x", 1, 1.5, True, None, {"a": 1}, ["a"], ""],
    "binary": ["aGk=", "!!!", "aGk", 1, None, ""],
    "datetime": [
        "2020-01-02",
        "2020-01-02 03:04:05.123456789",
        "2020-01-02T03:04:05Z",
        "x",
        1577934245,
        1.5,
        None,
        "20200102",
    ],
}
COLUMN = {
    "boolean": "bo",
    "integer": "i",
    "long": "l",
    "float": "f",
    "double": "d",
    "string": "s",
    "binary": "bi",
    "datetime": "dt",
}
