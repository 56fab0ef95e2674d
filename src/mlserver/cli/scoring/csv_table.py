"""CSV files as items: a header, then one item per row. Values are read as the model's metadata says, or as they look."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...types import MetadataModelResponse
from ..terminal import CommandError
from .items import NOT_SENT, ItemFailure, WorkItem
from .tables import Layout, Rows, layout
from .values import integer_for, number_for, refuse

_TRUE, _FALSE = {"true", "t", "yes", "1"}, {"false", "f", "no", "0"}
_DELIMITERS = ",;\t|"


class CSVTable:
    """A CSV file with a header; the delimiter is the likeliest of comma, semicolon, tab and bar, of `.tsv` the tab."""

    def __init__(self, path: Path, metadata: MetadataModelResponse | None) -> None:
        self._path = path
        self._metadata = metadata
        self._delimiter = ","
        self._names = self._header()
        self._layout: Layout | None = None

    def _header(self) -> list[str]:
        with self._path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        is_tsv = self._path.suffix.lower() == ".tsv"
        self._delimiter = "\t" if is_tsv else max(_DELIMITERS, key=first.count)
        names = next(csv.reader([first], delimiter=self._delimiter), [])
        if not names or len(set(names)) != len(names):
            raise CommandError(
                f"{self._path}: expected a header with distinct names of columns in the first line"
            )
        return names

    def _rows(self) -> Iterator[list[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter)
                next(reader)
                yield from (row for row in reader if row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{self._path}: cannot be read: {error}") from None

    def count(self) -> int:
        return sum(1 for _ in self._rows())

    def works(self, size: int, done: set[int]) -> Iterator[WorkItem]:
        shape = self._shape()
        places = [self._names.index(column.name) for column in shape.columns]
        readers = [reader_of(column.datatype) for column in shape.columns]
        waiting = Rows([], [[] for _ in places], {})
        for number, row in enumerate(self._rows()):
            if number in done:
                continue
            try:
                values = self._values(row, places, readers)
            except ValueError as error:
                waiting.failed[number] = ItemFailure(str(error), NOT_SENT)
            else:
                waiting.items.append(number)
                for column, value in zip(waiting.values, values, strict=True):
                    column.append(value)
            if len(waiting.items) + len(waiting.failed) >= size:
                yield waiting.work(shape)
                waiting = Rows([], [[] for _ in places], {})
        if waiting.items or waiting.failed:
            yield waiting.work(shape)

    def _values(
        self, row: list[str], places: list[int], readers: list[Callable[[str], Any]]
    ) -> list[Any]:
        if len(row) != len(self._names):
            raise ValueError(f"expected {len(self._names)} values, received {len(row)}")
        values = []
        for place, reader in zip(places, readers, strict=True):
            try:
                values.append(reader(row[place]))
            except ValueError as error:
                raise ValueError(f"column '{self._names[place]}': {error}") from None
        return values

    def _shape(self) -> Layout:
        if self._layout is None:
            described = self._metadata is not None and bool(self._metadata.inputs)
            self._layout = layout(self._names, self._metadata, {} if described else self._kinds())
        return self._layout

    def _kinds(self) -> dict[str, str]:
        """The narrowest datatype that takes every value of a column; it takes one pass over the file."""
        candidates = {name: ["INT64", "FP64", "BOOL", "BYTES"] for name in self._names}
        for row in self._rows():
            for name, text in zip(self._names, row, strict=False):
                while not _fits(candidates[name][0], text):
                    candidates[name].pop(0)
        return {name: left[0] for name, left in candidates.items()}


def _fits(datatype: str, text: str) -> bool:
    try:
        reader_of(datatype)(text)
    except ValueError:
        return False
    return True


def reader_of(datatype: str) -> Callable[[str], Any]:
    """What reads a cell as a datatype; it raises `ValueError` in words for the user."""
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return _boolean
    return partial(_integer if "INT" in datatype else _number, datatype)


def _number(datatype: str, text: str) -> float | None:
    """An empty cell is a missing value."""
    if not text.strip():
        return None
    try:
        number = float("none" if "_" in text else text)
    except ValueError:
        raise refuse("a number", text) from None
    return number_for(datatype, number)


def _integer(datatype: str, text: str) -> int:
    try:
        number = int("none" if "_" in text else text.removesuffix(".0"))
    except ValueError:
        raise refuse("an integer", text) from None
    return integer_for(datatype, number)


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise refuse("true or false", text)
