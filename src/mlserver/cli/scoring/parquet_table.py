"""Parquet files as items: one per row, with the types that the file says. Needs pyarrow, and says so."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ... import _optional
from ...errors import MLServerError
from ...types import MetadataModelResponse
from ..terminal import CommandError
from .items import NOT_SENT, ItemFailure, WorkItem
from .tables import Layout, Rows, layout
from .values import integer_for, number_for, refuse

# Arrow's names of types -> the protocol's.
_KINDS = {
    "bool": "BOOL",
    "halffloat": "FP16",
    "float": "FP32",
    "double": "FP64",
    **{
        f"{sign}int{bits}": f"{sign.upper()}INT{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


class ParquetTable:
    """A Parquet file, read group by group."""

    def __init__(self, path: Path, metadata: MetadataModelResponse | None) -> None:
        self._path = path
        parquet = _parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except Exception as error:
            raise CommandError(
                f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}"
            ) from None
        schema = self._file.schema_arrow
        kinds = {field.name: _kind(field.type) for field in schema}
        self._layout = layout(schema.names, metadata, kinds)

    def count(self) -> int:
        return int(self._file.metadata.num_rows)

    def works(self, size: int, done: set[int]) -> Iterator[WorkItem]:
        start = 0
        names = [column.name for column in self._layout.columns]
        for batch in self._file.iter_batches(batch_size=size, columns=names):
            keep = [place for place in range(batch.num_rows) if start + place not in done]
            if keep:
                yield _rows(batch, keep, start, self._layout).work(self._layout)
            start += batch.num_rows


def _rows(batch: Any, keep: list[int], start: int, shape: Layout) -> Rows:
    """The rows of a batch that are still to be done; those with a value that does not fit fail."""
    columns = []
    for column in shape.columns:
        values = batch.column(column.name).to_pylist()
        columns.append((column.name, [values[place] for place in keep], _reader(column.datatype)))
    rows = Rows([], [[] for _ in columns], {})
    for index, place in enumerate(keep):
        try:
            row = [_read(name, values[index], reader) for name, values, reader in columns]
            _check_widths(rows, row, shape)
        except ValueError as error:
            rows.failed[start + place] = ItemFailure(str(error), NOT_SENT)
            continue
        rows.items.append(start + place)
        for values, value in zip(rows.values, row, strict=True):
            values.append(value)
    return rows


def _read(name: str, value: Any, reader: Callable[[Any], Any]) -> Any:
    try:
        return [reader(each) for each in value] if isinstance(value, list) else reader(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"column '{name}': {error}") from None


def _check_widths(rows: Rows, row: list[Any], shape: Layout) -> None:
    """Lists of one column are all as long as the first."""
    for column, before, value in zip(shape.columns, rows.values, row, strict=True):
        if before and isinstance(value, list) and len(value) != len(before[0]):
            raise ValueError(
                f"column '{column.name}': expected a list of {len(before[0])}, received one of {len(value)}"
            )


def _kind(arrow: Any) -> str:
    """The datatype of a column by its Arrow type; what is neither number nor boolean travels as text."""
    inner = getattr(arrow, "value_type", arrow)
    name = str(inner)
    return "FP64" if name.startswith("decimal") else _KINDS.get(name, "BYTES")


def _reader(datatype: str) -> Callable[[Any], Any]:
    """What turns a value of Arrow's into an element of the tensor; it raises `ValueError` in words for the user."""
    if datatype == "BYTES":
        return _text
    if datatype == "BOOL":
        return _boolean
    return partial(_integer if "INT" in datatype else _number, datatype)


def _text(value: Any) -> str | bytes:
    if value is None:
        raise refuse("text", None)
    if isinstance(value, bytes):
        return base64.b64encode(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise refuse("true or false", value)
    return value


def _number(datatype: str, value: Any) -> float | None:
    return None if value is None else number_for(datatype, float(value))


def _integer(datatype: str, value: Any) -> int:
    if value is None or value != int(value):
        raise refuse("an integer", value)
    return integer_for(datatype, int(value))


def _parquet() -> Any:
    try:
        return _optional.import_optional("pyarrow.parquet", "Parquet", "arrow")
    except MLServerError as error:
        raise CommandError(error.message) from None
