"""The finished output as a table: one row per item, one column per output, and `error` if an item failed."""

from __future__ import annotations

import csv
import json as plain_json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ... import _optional
from ...errors import MLServerError
from ...wire import json
from ..terminal import CommandError
from .source import check_suffix

# Ending of the name -> the delimiter; the other tables are Parquet.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLES = (*DELIMITERS, ".parquet", ".pq")
_ERROR = "error"


def journal_path(output: Path) -> Path:
    """Where the lines go while the job runs: the output itself, or a file beside a table."""
    return output.with_name(f"{output.name}.part") if output.suffix.lower() in TABLES else output


def check(output: Path) -> None:
    """Raises `CommandError` before the job runs if its output could not be written afterwards."""
    check_suffix(output)
    if output.suffix.lower() in TABLES and output.suffix.lower() not in DELIMITERS:
        _parquet()
    if not output.resolve().parent.is_dir():
        raise CommandError(f"{output.parent}: no such folder")


def export(lines: Path, output: Path) -> None:
    """Write the table from the journal."""
    names = _names(lines)
    with _whole(output) as target:
        if delimiter := DELIMITERS.get(output.suffix.lower()):
            _write_csv(lines, target, names, delimiter)
        else:
            _write_parquet(lines, target, names)


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A file beside the output that takes its place when it is complete."""
    target = output.with_name(f".{output.name}.writing")
    try:
        yield target
        os.replace(target, output)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _rows(lines: Path) -> Iterator[dict[str, Any]]:
    with lines.open("rb") as file:
        for line in file:
            document = json.read_json(line)
            if _ERROR in document:
                yield {_ERROR: str(document[_ERROR]["msg"])}
            else:
                yield {output["name"]: _value(output["data"]) for output in document["outputs"]}


def _value(data: list[Any]) -> Any:
    """One element stands for itself; several are a list."""
    return data[0] if len(data) == 1 else data


def _names(lines: Path) -> list[str]:
    """The columns, in the order in which outputs first appear; errors last."""
    names = list(dict.fromkeys(name for row in _rows(lines) for name in row))
    return sorted(names, key=lambda name: name == _ERROR)


def _write_csv(lines: Path, target: Path, names: list[str], delimiter: str) -> None:
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        for row in _rows(lines):
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    return plain_json.dumps(value, ensure_ascii=False) if isinstance(value, (list, bool)) else value


def _write_parquet(lines: Path, target: Path, names: list[str]) -> None:
    arrow, parquet = _optional.import_optional("pyarrow", "Parquet", "arrow"), _parquet()
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in _rows(lines):
        for name, values in columns.items():
            values.append(row.get(name))
    try:
        parquet.write_table(arrow.table(columns), target)
    except arrow.ArrowException as error:
        raise CommandError(
            f"the answers do not form a table: {error}; write JSON lines instead"
        ) from None


def _parquet() -> Any:
    try:
        return _optional.import_optional("pyarrow.parquet", "Parquet", "arrow")
    except MLServerError as error:
        raise CommandError(error.message) from None
