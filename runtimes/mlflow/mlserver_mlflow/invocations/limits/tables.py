"""Tables that would take far more memory and time than their bodies have bytes: refused before pandas makes them.

A frame has a cell for each row and column, whether the body has one or not: a header of thousands of columns over thousands of
short rows, or thousands of objects with a key each of their own, are gigabytes made of kilobytes. And a column costs pandas as
much as thousands of numbers do, a column without rows or a level of an index some times that again, so their number is
bounded too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from . import parquet
from .csv_fields import fields

# Cells that a table may have whatever its body has, and how many there may be for each that the body has.
SMALL, SPARSE = 100_000, 4
# Columns of a model that does not say which it takes; of one that does, so many more may come, for it ignores them.
ANY_COLUMNS, EXTRA_COLUMNS = 10_000, 1_000
# Columns without a row that may come beside those of the model, and levels of an index: pandas makes an object of each.
EMPTY, LEVELS = 500, 100
# Bytes that the pages of a Parquet file may have when decompressed, whatever the file has, and for each byte of it.
PAGES, PACKED = 2_000_000, 32
# Shorter JSON cannot name enough keys to matter.
SHORT = 1024


def check_csv(body: bytes | str, names: int) -> None:
    """Raises `ValueError` for a table out of bounds.

    Args:
        names: How many columns the model takes; 0 = it does not say.
    """
    data = body.encode() if isinstance(body, str) else body
    widths = fields(data)
    if not widths:
        return
    _check(max(widths), len(widths), sum(widths), names)
    odd = (
        b"\r," in data
    )  # pandas may take the two for one end of a line, and then has another header
    if len(widths) == 1 or odd:
        _check_empty(max(widths), names)
    if len(widths) > 1:
        _check_levels(max(widths) - min(widths) if odd else widths[1] - widths[0])


def check_parquet(body: bytes | str, names: int) -> None:
    """Raises `ValueError` for a table out of bounds. What is no Parquet is left to whoever reads it."""
    data = body.encode() if isinstance(body, str) else body
    if data[-4:] != parquet.MAGIC:
        return
    with _unreadable():
        found = parquet.footer(data)
    # Its values are often packed, but not into nothing: eight bytes of a frame for each cell are a hundred times the body.
    _check(found.columns, found.rows, SPARSE * len(data), names)
    with _unreadable():
        parquet.check(data, found, SMALL + SPARSE * len(data), PAGES + PACKED * len(data))


@contextmanager
def _unreadable() -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        raise ValueError(f"Invalid input. The table cannot be read: {error}.") from None


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
    records = document.get("dataframe_records")
    if isinstance(records, list):
        _check(*_extent(records), names)
    for form in ("instances", "inputs"):
        _check_objects(document.get(form), names)
    split = document.get("dataframe_split")
    if isinstance(split, dict):
        _check_split(split, names)


def _loads(body: bytes | str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # it takes NaN and numbers of any length


def _check_objects(value: Any, names: int) -> None:
    """Objects of any keys, or an object of columns."""
    if isinstance(value, list):
        _check(*_extent([row for row in value if isinstance(row, dict)]), names)
    elif isinstance(value, dict):
        _check(len(value), 1, len(value), names)
        if names:
            # In a frame, what one column has, each has. Those of the model are what it asked for.
            _, rows, cells = _extent(value)
            _check(max(0, len(value) - names), rows, cells, names)


def _check_split(split: dict[str, Any], names: int) -> None:
    """Labels and data, which pandas fills up to whatever is widest and longest."""
    columns, rows, cells = _extent(split.get("data"))
    wide, long = _labels(split.get("columns")), _labels(split.get("index"))
    columns, rows = max(columns, wide), max(rows, long)
    _check(columns, rows, cells + wide + long, names)
    if not rows:
        _check_empty(columns, names)


def _labels(value: Any) -> int:
    """How many labels there are; lists in their place are the levels of labels."""
    if not isinstance(value, list):
        return 0
    levels = [level for level in value if isinstance(level, list)]
    if levels:
        _check_levels(len(value))
    return max([len(value), *map(len, levels)])


def _extent(value: Any) -> tuple[int, int, int]:
    """Columns and rows that a frame made of this has, and how many cells of it are there."""
    if isinstance(value, dict):
        long = [len(column) for column in value.values() if isinstance(column, (list, dict))]
        rows = max(len(_keys(value.values())), *long, 1) if value else 0
        return len(value), rows, sum(long) + len(value) - len(long)
    if not isinstance(value, list):
        return 0, 0, 0
    wide = [len(row) for row in value if isinstance(row, (list, dict))]
    columns = max([len(_keys(value)), *wide], default=0)
    return columns, len(value), sum(wide) + len(value) - len(wide)


def _keys(values: Iterable[Any]) -> set[str]:
    return set().union(*(one for one in values if isinstance(one, dict)))


def _check(columns: int, rows: int, cells: int, names: int) -> None:
    most = names + EXTRA_COLUMNS if names else ANY_COLUMNS
    if columns > most:
        raise ValueError(
            f"Invalid input. The table has {columns} columns; at most {most} are read."
        )
    if columns * rows > SMALL + SPARSE * cells:
        raise ValueError(
            f"Invalid input. The table has {rows} rows and {columns} columns, but only {cells} values; fill it, or send fewer"
            " rows at a time."
        )


def _check_empty(columns: int, names: int) -> None:
    if columns > names + EMPTY:
        raise ValueError(
            f"Invalid input. The table has {columns} columns and no rows; without rows, at most {names + EMPTY} columns are read."
        )


def _check_levels(levels: int) -> None:
    if levels > LEVELS:
        raise ValueError(
            f"Invalid input. The table has {levels} columns of labels; at most {LEVELS} are read."
        )
