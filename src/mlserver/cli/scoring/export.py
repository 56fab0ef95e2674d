"""Converts the output log to a table: a row per item, a column per output, and a column `error`."""

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

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (*DELIMITERS, *PARQUET_SUFFIXES)
_ERROR = "error"


def get_log_path(output: Path) -> Path:
    """Return the path of the output log: the output itself, or a file beside a table."""
    is_table = output.suffix.lower() in TABLE_SUFFIXES
    return output.with_name(f"{output.name}.part") if is_table else output


def check_output(output: Path) -> None:
    """Raise `CommandError` if the output could not be written at the end of the job."""
    check_suffix(output)
    if output.suffix.lower() in PARQUET_SUFFIXES:
        import_parquet()
    if not output.resolve().parent.is_dir():
        raise CommandError(f"{output.parent}: no such folder")


def require_new_output(output: Path) -> None:
    """Raise `CommandError` if the output, or the log of an interrupted job for it, has content.

    Devices and pipes, such as /dev/stdout, are written without a question.
    """
    for path in (output, get_log_path(output)):
        if path.is_file() and path.stat().st_size:
            raise CommandError(
                f"{path} exists: --resume continues its job, --overwrite replaces it"
            )


def export(log_path: Path, output: Path) -> None:
    """Write the table from the output log."""
    names = _read_column_names(log_path)
    delimiter = DELIMITERS.get(output.suffix.lower())
    with _replace_when_complete(output) as target:
        if delimiter is None:
            _write_parquet(log_path, target, names)
        else:
            _write_csv(log_path, target, names, delimiter)


@contextmanager
def _replace_when_complete(output: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces the output at the end; it is removed after an error."""
    target = output.with_name(f".{output.name}.writing")
    try:
        yield target
        os.replace(target, output)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _read_rows(log_path: Path) -> Iterator[dict[str, Any]]:
    with log_path.open("rb") as file:
        for line in file:
            document = json.read_json(line)
            if _ERROR in document:
                yield {_ERROR: str(document[_ERROR]["msg"])}
            else:
                outputs = document["outputs"]
                yield {output["name"]: _unwrap_scalar(output["data"]) for output in outputs}


def _unwrap_scalar(data: list[Any]) -> Any:
    """Return the element of a list of one; longer lists stay lists."""
    return data[0] if len(data) == 1 else data


def _read_column_names(log_path: Path) -> list[str]:
    """Return the names of the outputs in the order of their first occurrence; `error` is last."""
    names = list(dict.fromkeys(name for row in _read_rows(log_path) for name in row))
    return sorted(names, key=lambda name: name == _ERROR)


def _write_csv(log_path: Path, target: Path, names: list[str], delimiter: str) -> None:
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        for row in _read_rows(log_path):
            writer.writerow({name: _format_cell(value) for name, value in row.items()})


def _format_cell(value: Any) -> Any:
    return plain_json.dumps(value, ensure_ascii=False) if isinstance(value, (list, bool)) else value


def _write_parquet(log_path: Path, target: Path, names: list[str]) -> None:
    arrow, parquet = _optional.import_optional("pyarrow", "Parquet", "arrow"), import_parquet()
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in _read_rows(log_path):
        for name, values in columns.items():
            values.append(row.get(name))
    try:
        parquet.write_table(arrow.table(columns), target)
    except arrow.ArrowException as error:
        raise CommandError(
            f"the responses do not form a table: {error}; write JSON lines (.jsonl) instead"
        ) from None


def import_parquet() -> Any:
    """Import `pyarrow.parquet`. Raises `CommandError` with the install command."""
    try:
        return _optional.import_optional("pyarrow.parquet", "Parquet", "arrow")
    except MLServerError as error:
        raise CommandError(error.message) from None
