"""CSV and TSV files as items: one per row, typed by the model's metadata or by the values."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...types import MetadataModelResponse
from ..terminal import CommandError
from .items import NOT_SENT, ItemFailure, WorkItem
from .tables import TableLayout, TableRows, match_columns
from .values import check_float, check_integer, wrong_type_error

_TRUE, _FALSE = {"true", "t", "yes", "1"}, {"false", "f", "no", "0"}
_DELIMITERS = ",;\t|"
# Datatypes tried for a column without metadata, narrowest first.
_DATATYPES = ("INT64", "FP64", "BOOL", "BYTES")


class CSVTable:
    """A CSV file with a header.

    The delimiter of `.tsv` is the tab; otherwise the most frequent one of `,`, `;`, tab and `|` in
    the header.
    """

    def __init__(self, path: Path, metadata: MetadataModelResponse | None) -> None:
        self._path = path
        self._metadata = metadata
        self._delimiter = ","
        self._names = self._read_header()

    def _read_header(self) -> list[str]:
        with self._path.open(encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
        is_tsv = self._path.suffix.lower() == ".tsv"
        self._delimiter = "\t" if is_tsv else max(_DELIMITERS, key=first_line.count)
        names = next(csv.reader([first_line], delimiter=self._delimiter), [])
        if not names or len(set(names)) != len(names):
            raise CommandError(
                f"{self._path}: expected a header with distinct column names in the first line"
            )
        return names

    def _read_rows(self) -> Iterator[list[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter)
                next(reader)
                yield from (row for row in reader if row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{self._path}: cannot be read: {error}") from None

    def count(self) -> int:
        return sum(1 for _ in self._read_rows())

    def read_work_items(self, batch_size: int, done: set[int]) -> Iterator[WorkItem]:
        layout = self._read_layout()
        indices = [self._names.index(column.name) for column in layout.columns]
        parsers = [get_parser(column.datatype) for column in layout.columns]
        rows = TableRows.create_empty(len(indices))
        for item, row in enumerate(self._read_rows()):
            if item in done:
                continue
            try:
                rows.append(item, self._parse_row(row, indices, parsers))
            except ValueError as error:
                rows.failed[item] = ItemFailure(str(error), NOT_SENT)
            if len(rows.items) + len(rows.failed) >= batch_size:
                yield rows.to_work_item(layout)
                rows = TableRows.create_empty(len(indices))
        if rows.items or rows.failed:
            yield rows.to_work_item(layout)

    def _parse_row(
        self, row: list[str], indices: list[int], parsers: list[Callable[[str], Any]]
    ) -> list[Any]:
        if len(row) != len(self._names):
            raise ValueError(f"expected {len(self._names)} values, received {len(row)}")
        values = []
        for index, parse in zip(indices, parsers, strict=True):
            try:
                values.append(parse(row[index]))
            except ValueError as error:
                raise ValueError(f"column '{self._names[index]}': {error}") from None
        return values

    def _read_layout(self) -> TableLayout:
        has_inputs = self._metadata is not None and bool(self._metadata.inputs)
        datatypes = {} if has_inputs else self._infer_datatypes()
        return match_columns(self._names, self._metadata, datatypes)

    def _infer_datatypes(self) -> dict[str, str]:
        """Return the narrowest datatype for the values of each column; reads the whole file."""
        candidates = {name: list(_DATATYPES) for name in self._names}
        for row in self._read_rows():
            for name, text in zip(self._names, row, strict=False):
                while not _can_parse(candidates[name][0], text):
                    candidates[name].pop(0)
        return {name: remaining[0] for name, remaining in candidates.items()}


def _can_parse(datatype: str, text: str) -> bool:
    try:
        get_parser(datatype)(text)
    except ValueError:
        return False
    return True


def get_parser(datatype: str) -> Callable[[str], Any]:
    """Return the parser of a cell; it raises `ValueError` for a text that does not fit."""
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return _parse_bool
    return partial(_parse_int if "INT" in datatype else _parse_float, datatype)


def _parse_float(datatype: str, text: str) -> float | None:
    """Parse a number; an empty cell is a missing value."""
    if not text.strip():
        return None
    try:
        number = float(_reject_underscores(text))
    except ValueError:
        raise wrong_type_error("a number", text) from None
    return check_float(datatype, number)


def _parse_int(datatype: str, text: str) -> int:
    try:
        number = int(_reject_underscores(text).removesuffix(".0"))
    except ValueError:
        raise wrong_type_error("an integer", text) from None
    return check_integer(datatype, number)


def _reject_underscores(text: str) -> str:
    """Return the text; Python would read "1_0" as the number 10."""
    if "_" in text:
        raise ValueError(text)
    return text


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise wrong_type_error("true or false", text)
