"""Reader of the reference table: a CSV file, or a Parquet file with the extra `arrow`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ..scoring.export import import_parquet
from ..terminal import CommandError

_DELIMITERS = ",;\t|"
# Texts of missing values in CSV, as pandas reads them.
_MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"))


def read_reference(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a table: None = missing; numbers of a CSV file as text.

    Raises:
        CommandError: the file cannot be read, or it has no rows.
    """
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    columns = _read_parquet(path) if is_parquet else _read_csv(path)
    if not columns or not next(iter(columns.values())):
        raise CommandError(f"--reference {path}: expected a table with rows, received none")
    return columns


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    parquet = import_parquet()
    try:
        table = parquet.read_table(path)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"--reference {path}: cannot be read as Parquet: {reason}") from None
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _read_csv(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first_line.count)
            header, *rows = csv.reader(file, delimiter=delimiter)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise CommandError(f"--reference {path}: cannot be read: {error}") from None
    for number, row in enumerate(rows, 2):
        if row and len(row) != len(header):
            raise CommandError(
                f"--reference {path}, line {number}: expected {len(header)} values, received"
                f" {len(row)}"
            )
    rows = [row for row in rows if row]
    columns: dict[str, list[Any]] = {}
    for index, name in enumerate(header):
        columns[name] = [None if row[index] in _MISSING else row[index] for row in rows]
    return columns
