"""Tables that would take far more memory and time than their bodies have bytes: refused before pandas makes them.

A frame has a cell for each row and column, whether the body has one or not: a header of thousands of columns over thousands of
short rows, or thousands of objects with a key each of their own, are gigabytes made of kilobytes. And a column costs pandas as
much as thousands of numbers do, so their number is bounded too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import orjson

# Cells that a table may have whatever its body has, and how many there may be for each that the body has.
SMALL, SPARSE = 100_000, 4
# Columns of a model that does not say which it takes; of one that does, so many more may come, for it ignores them.
ANY_COLUMNS, EXTRA_COLUMNS = 10_000, 1_000
# Shorter JSON cannot name enough keys to matter.
SHORT = 4096


def check_csv(body: bytes | str, names: int) -> None:
    """Raises `ValueError` for a table out of bounds.

    Args:
        names: How many columns the model takes; 0 = it does not say.
    """
    data = body.encode() if isinstance(body, str) else body
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    rows = data.count(b"\n") + 1
    fields = data.count(b",") + rows
    _check(max(line.count(b",") for line in io.BytesIO(data or b"\n")) + 1, rows, fields, names)


def check_parquet(body: bytes | str, names: int) -> None:
    """Raises `ValueError` for a table out of bounds. What is no Parquet is left to whoever reads it."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    try:
        found = read_metadata(io.BytesIO(body.encode() if isinstance(body, str) else body))
    except (ArrowException, OSError, ValueError):
        return
    # Its values are often packed, but not into nothing: eight bytes of a frame for each cell are a hundred times the body.
    _check(found.num_columns, found.num_rows, SPARSE * len(body), names)


def check_json(body: bytes | str, names: int) -> None:
    """Raises `ValueError` for a table out of bounds. What is no JSON is left to whoever reads it."""
    if len(body) <= SHORT:
        return
    try:
        document = _loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    for form in ("dataframe_records", "instances", "inputs"):
        _check_objects(document.get(form), names)
    split = document.get("dataframe_split")
    if isinstance(split, dict):
        _check_lists(split.get("columns"), split.get("data"), names)


def _loads(body: bytes | str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # it takes NaN and numbers of any length


def _check_objects(value: Any, names: int) -> None:
    """Objects of any keys, or an object of columns."""
    if isinstance(value, dict):
        _check(len(value), 1, len(value), names)
    elif isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict)]
        _check(len(set().union(*rows)), len(rows), _total(rows), names)


def _check_lists(columns: Any, value: Any, names: int) -> None:
    """Lists of any length, which pandas fills up to the longest."""
    wide = len(columns) if isinstance(columns, list) else 0
    rows = [row for row in value if isinstance(row, list)] if isinstance(value, list) else []
    _check(max([wide, *map(len, rows)]), len(rows), _total(rows), names)


def _total(rows: Iterable[Any]) -> int:
    return sum(map(len, rows))


def _check(columns: int, rows: int, cells: int, names: int) -> None:
    most = names + EXTRA_COLUMNS if names else ANY_COLUMNS
    if columns > most:
        raise ValueError(f"Invalid input. The table has {columns} columns; at most {most} are read.")
    if columns * rows > SMALL + SPARSE * cells:
        raise ValueError(
            f"Invalid input. The table has {rows} rows and {columns} columns, but only {cells} values; fill it, or send fewer"
            " rows at a time."
        )
