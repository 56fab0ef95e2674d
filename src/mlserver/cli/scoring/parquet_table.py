"""Parquet files as items: one per row, typed by the model's metadata or the file. Needs pyarrow."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...types import MetadataModelResponse
from ..terminal import CommandError
from .export import import_parquet
from .items import NOT_SENT, ItemFailure, WorkItem
from .tables import TableLayout, TableRows, match_columns
from .values import check_float, check_integer, wrong_type_error

# Name of the Arrow type -> datatype of the protocol.
_DATATYPES = {
    "bool": "BOOL",
    "halffloat": "FP16",
    "float": "FP32",
    "double": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
}


class ParquetTable:
    """A Parquet file, read in batches."""

    def __init__(self, path: Path, metadata: MetadataModelResponse | None) -> None:
        parquet = import_parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"{path}: cannot be read as Parquet: {reason}") from None
        schema = self._file.schema_arrow
        datatypes = {field.name: _get_datatype(field.type) for field in schema}
        self._layout = match_columns(schema.names, metadata, datatypes)

    def count(self) -> int:
        return int(self._file.metadata.num_rows)

    def read_work_items(self, batch_size: int, done: set[int]) -> Iterator[WorkItem]:
        start = 0
        names = [column.name for column in self._layout.columns]
        for batch in self._file.iter_batches(batch_size=batch_size, columns=names):
            items = range(start, start + batch.num_rows)
            pending = [item for item in items if item not in done]
            if pending:
                rows = _convert_rows(batch, pending, start, self._layout)
                yield rows.to_work_item(self._layout)
            start += batch.num_rows


def _convert_rows(batch: Any, items: list[int], start: int, layout: TableLayout) -> TableRows:
    """Convert the rows of some items; a row with an invalid value fails alone.

    Args:
        start: Item of the batch's first row.
    """
    columns = [batch.column(column.name).to_pylist() for column in layout.columns]
    converters = [_get_converter(column.datatype) for column in layout.columns]
    rows = TableRows.create_empty(len(columns))
    for item in items:
        values = [column[item - start] for column in columns]
        try:
            row = [
                _convert(column.name, value, convert)
                for column, value, convert in zip(layout.columns, values, converters, strict=True)
            ]
            _check_widths(rows, row, layout)
        except ValueError as error:
            rows.failed[item] = ItemFailure(str(error), NOT_SENT)
            continue
        rows.append(item, row)
    return rows


def _convert(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        if isinstance(value, list):
            return [convert(element) for element in value]
        return convert(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"column '{name}': {error}") from None


def _check_widths(rows: TableRows, row: list[Any], layout: TableLayout) -> None:
    """Raise `ValueError` unless the lists of each column have one length."""
    for column, previous, value in zip(layout.columns, rows.values, row, strict=True):
        if previous and isinstance(value, list) and len(value) != len(previous[0]):
            raise ValueError(
                f"column '{column.name}': expected a list of {len(previous[0])},"
                f" received one of {len(value)}"
            )


def _get_datatype(arrow_type: Any) -> str:
    """Return the datatype of a column; types other than numbers and booleans are sent as text."""
    element_type = getattr(arrow_type, "value_type", arrow_type)
    name = str(element_type)
    return "FP64" if name.startswith("decimal") else _DATATYPES.get(name, "BYTES")


def _get_converter(datatype: str) -> Callable[[Any], Any]:
    """Return the function from an Arrow value to a tensor element; it may raise `ValueError`."""
    if datatype == "BYTES":
        return _convert_to_text
    if datatype == "BOOL":
        return _convert_to_bool
    return partial(_convert_to_int if "INT" in datatype else _convert_to_float, datatype)


def _convert_to_text(value: Any) -> str | bytes:
    if value is None:
        raise wrong_type_error("text", None)
    if isinstance(value, bytes):
        return base64.b64encode(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _convert_to_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type_error("true or false", value)
    return value


def _convert_to_float(datatype: str, value: Any) -> float | None:
    return None if value is None else check_float(datatype, float(value))


def _convert_to_int(datatype: str, value: Any) -> int:
    if value is None or value != int(value):
        raise wrong_type_error("an integer", value)
    return check_integer(datatype, int(value))
