"""Limits of tables in scoring bodies, checked before pandas builds a frame.

A frame has a cell for every row and column, whether the body has a value for it or not: a header
of thousands of columns over thousands of short rows, or thousands of objects with distinct keys,
turn kilobytes into gigabytes. A column costs pandas as much as thousands of numbers, and a column
without rows or an index level several times that, so their number is limited too.
docs/explanation/decisions/limits.md lists the measurements.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from . import parquet
from .csv_fields import count_fields

# Cells that any table may have, and further cells per value in the body.
MAX_FREE_CELLS, MAX_CELLS_PER_VALUE = 100_000, 4
# Columns for a model without column names; for others, columns beyond the model's own.
MAX_COLUMNS, MAX_EXTRA_COLUMNS = 10_000, 1_000
# Columns of a table without rows beyond the model's own, and index levels: pandas allocates an
# object for each.
MAX_EMPTY_COLUMNS, MAX_INDEX_LEVELS = 500, 100
# Decompressed bytes that any Parquet file may have, and further bytes per byte of the file.
MAX_FREE_PAGE_BYTES, MAX_PAGE_BYTES_PER_BYTE = 2_000_000, 32
# Shorter JSON bodies cannot hold enough keys to matter.
MIN_CHECKED_BYTES = 1024


def check_csv(body: bytes | str, model_columns: int) -> None:
    """Raise `ValueError` for a CSV table that exceeds the limits.

    Args:
        model_columns: Number of columns in the signature; 0 = it names none.
    """
    data = body.encode() if isinstance(body, str) else body
    widths = count_fields(data)
    if not widths:
        return
    _check_table(max(widths), len(widths), sum(widths), model_columns)
    # pandas may read "\r," as one line end, and then reads another header.
    has_odd_line_ends = b"\r," in data
    if len(widths) == 1 or has_odd_line_ends:
        _check_empty_columns(max(widths), model_columns)
    if len(widths) > 1:
        widest = max(widths) - min(widths)
        _check_index_levels(widest if has_odd_line_ends else widths[1] - widths[0])


def check_parquet(body: bytes | str, model_columns: int) -> None:
    """Raise `ValueError` for a Parquet table that exceeds the limits; other content is ignored."""
    data = body.encode() if isinstance(body, str) else body
    if data[-4:] != parquet.MAGIC:
        return
    with _translate_errors():
        footer = parquet.read_footer(data)
    # Four cells per byte of the file: 8 bytes per cell make a frame about 32 times the body.
    _check_table(footer.columns, footer.rows, MAX_CELLS_PER_VALUE * len(data), model_columns)
    max_values = MAX_FREE_CELLS + MAX_CELLS_PER_VALUE * len(data)
    max_bytes = MAX_FREE_PAGE_BYTES + MAX_PAGE_BYTES_PER_BYTE * len(data)
    with _translate_errors():
        parquet.check_size(data, footer, max_values, max_bytes)


@contextmanager
def _translate_errors() -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        raise ValueError(f"Invalid input. The table cannot be read: {error}.") from None


def check_json(body: bytes | str, model_columns: int) -> None:
    """Raise `ValueError` for a JSON table that exceeds the limits; other content is ignored."""
    if len(body) <= MIN_CHECKED_BYTES:
        return
    try:
        document = _load_json(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    records = document.get("dataframe_records")
    if isinstance(records, list):
        _check_table(*_measure(records), model_columns)
    for form in ("instances", "inputs"):
        _check_objects(document.get(form), model_columns)
    split = document.get("dataframe_split")
    if isinstance(split, dict):
        _check_split(split, model_columns)


def _load_json(body: bytes | str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)  # accepts NaN and integers of any length


def _check_objects(value: Any, model_columns: int) -> None:
    """Check a list of objects, or an object of columns."""
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict)]
        _check_table(*_measure(rows), model_columns)
    elif isinstance(value, dict):
        _check_table(len(value), 1, len(value), model_columns)
        if model_columns:
            # pandas fills every column to the longest one; only surplus columns are limited.
            _, row_count, cells = _measure(value)
            surplus = max(0, len(value) - model_columns)
            _check_table(surplus, row_count, cells, model_columns)


def _check_split(split: dict[str, Any], model_columns: int) -> None:
    """Check labels and data, which pandas fills to the widest and longest of them."""
    columns, rows, cells = _measure(split.get("data"))
    column_labels = _count_labels(split.get("columns"))
    row_labels = _count_labels(split.get("index"))
    columns, rows = max(columns, column_labels), max(rows, row_labels)
    _check_table(columns, rows, cells + column_labels + row_labels, model_columns)
    if not rows:
        _check_empty_columns(columns, model_columns)


def _count_labels(value: Any) -> int:
    """Return the number of labels; a list of lists holds the levels of a multi-level index."""
    if not isinstance(value, list):
        return 0
    levels = [level for level in value if isinstance(level, list)]
    if levels:
        _check_index_levels(len(value))
    return max([len(value), *map(len, levels)])


def _measure(value: Any) -> tuple[int, int, int]:
    """Return columns and rows of the frame made of a value, and the number of values in it."""
    if isinstance(value, dict):
        lengths = [len(column) for column in value.values() if isinstance(column, (list, dict))]
        rows = max(len(_collect_keys(value.values())), *lengths, 1) if value else 0
        return len(value), rows, sum(lengths) + len(value) - len(lengths)
    if not isinstance(value, list):
        return 0, 0, 0
    widths = [len(row) for row in value if isinstance(row, (list, dict))]
    columns = max([len(_collect_keys(value)), *widths], default=0)
    return columns, len(value), sum(widths) + len(value) - len(widths)


def _collect_keys(values: Iterable[Any]) -> set[str]:
    return set().union(*(value for value in values if isinstance(value, dict)))


def _check_table(columns: int, rows: int, values: int, model_columns: int) -> None:
    limit = model_columns + MAX_EXTRA_COLUMNS if model_columns else MAX_COLUMNS
    if columns > limit:
        raise ValueError(
            f"Invalid input. The table has {columns} columns: expected at most {limit}."
        )
    if columns * rows > MAX_FREE_CELLS + MAX_CELLS_PER_VALUE * values:
        raise ValueError(
            f"Invalid input. The table has {rows} rows and {columns} columns, but only {values}"
            " values: fill it, or send fewer rows per request."
        )


def _check_empty_columns(columns: int, model_columns: int) -> None:
    limit = model_columns + MAX_EMPTY_COLUMNS
    if columns > limit:
        raise ValueError(
            f"Invalid input. The table has {columns} columns and no rows: expected at most {limit}"
            " columns in a table without rows."
        )


def _check_index_levels(levels: int) -> None:
    if levels > MAX_INDEX_LEVELS:
        raise ValueError(
            f"Invalid input. The table has {levels} columns of labels: expected at most"
            f" {MAX_INDEX_LEVELS}."
        )
