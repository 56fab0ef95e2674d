"""Columns of unparsed scoring bodies and of their results, for the server's payload log.

The front end imports this module, so it imports neither MLflow nor pandas. The columns are those
that MLflow reads: names and values. None for bodies whose columns are not known here (Parquet,
lists without names, invalid bodies), so that the payload log can mask them as a whole.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import orjson

Columns = dict[str, list[Any]]

_CSV = "text/csv"
_JSON = "application/json"
_FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
# Parameter with the body's content type (`wire.HEADER`).
_HEADER = "mlflow_content_type"


def read_columns(parameters: Mapping[str, Any], body: bytes) -> Columns | None:
    """Return the columns of a scoring body or result.

    Args:
        parameters: Parameters of the request or response that holds the body.
    """
    content_type = str(parameters.get(_HEADER, _JSON)).partition(";")[0].strip().lower()
    try:
        if content_type == _CSV:
            return _read_csv(body.decode("utf-8-sig"))
        if content_type == _JSON:
            return _read_document(orjson.loads(body))
    except (ValueError, csv.Error):
        return None
    return None


def _read_csv(text: str) -> Columns | None:
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = [row for row in rows if row]
    if len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        return None
    columns: Columns = {}
    for index, name in enumerate(header):
        columns[name] = [row[index] or None for row in rows]
    return columns


def _read_document(document: Any) -> Columns | None:
    if not isinstance(document, dict):
        return None
    if "predictions" in document:
        return _read_predictions(document["predictions"])
    form = next((name for name in _FORMS if name in document), None)
    if form is None:  # a chat model's or an agent's own fields
        return {name: [value] for name, value in document.items()}
    value = document[form]
    columns = _read_split(value) if form == "dataframe_split" else _read_table(value)
    params = document.get("params")
    if columns is None or not isinstance(params, dict):
        return columns
    return columns | {name: [value] for name, value in params.items() if name not in columns}


def _read_predictions(value: Any) -> Columns:
    """Return the columns of a result; "predictions" for values without names."""
    columns = _read_table(value)
    if columns is not None:
        return columns
    return {"predictions": value if isinstance(value, list) else [value]}


def _read_split(value: Any) -> Columns | None:
    if not isinstance(value, dict):
        return None
    names, rows = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(rows, list):
        return None
    if len(set(map(str, names))) != len(names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    columns: Columns = {}
    for index, name in enumerate(names):
        columns[str(name)] = [row[index] for row in rows]
    return columns


def _read_table(value: Any) -> Columns | None:
    """Return the columns of a list of objects, or of an object of lists; None for others."""
    if isinstance(value, dict):
        columns = value.items()
        return {name: items if isinstance(items, list) else [items] for name, items in columns}
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(row, dict) for row in value):
        return None
    table: Columns = {}
    for name in dict.fromkeys(name for row in value for name in row):
        table[name] = [row.get(name) for row in value]
    return table
