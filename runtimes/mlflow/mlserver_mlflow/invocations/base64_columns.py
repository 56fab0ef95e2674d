"""Base64 in `inputs` and `instances` of `/invocations`, for models whose settings ask for it (`extra.base64_inputs`).

MLflow reads base64 in `dataframe_split` and `dataframe_records` only. In the other two forms the characters themselves become
the bytes of a binary column, so a client that sends base64 there gets a wrong answer and no error. With the setting, binary
columns hold base64 in all forms; what is no base64 is refused with the column's name.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from mlflow.types import DataType
from mlflow.types.schema import ColSpec, Schema

from mlserver.errors import MLServerError

SETTING = "base64_inputs"
FORMS = ("inputs", "instances")


def columns(schema: Schema | None, extra: dict[str, Any], from_type_hint: bool) -> frozenset[str]:
    """The names of the columns whose base64 is decoded; empty unless the setting says so.

    Raises:
        MLServerError: the setting is neither true nor false.
    """
    wanted = extra.get(SETTING, False)
    if not isinstance(wanted, bool):
        raise MLServerError(f"'{SETTING}' must be true or false, not {wanted!r}", 500)
    # With a type hint, MLflow decodes base64 in every form by itself.
    if not wanted or schema is None or from_type_hint or not schema.has_input_names():
        return frozenset()
    return frozenset(
        str(spec.name)
        for spec in schema.inputs
        if isinstance(spec, ColSpec) and spec.type == DataType.binary
    )


def check(body: bytes | str, names: frozenset[str]) -> None:
    """Look at the elements of binary columns as they came; what is no JSON is left to MLflow.

    Raises:
        ValueError: an element is no base64; the text names the column.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    for form in FORMS:
        for name, element in _elements(document[form], names) if form in document else ():
            if not _is_base64(element):
                raise ValueError(
                    f"Column '{name}' is binary: expected base64 text (setting '{SETTING}')"
                )


def _elements(data: Any, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """(column, element) of the binary columns in one form's data, whatever its shape."""
    if isinstance(data, dict):
        for name in names & data.keys():
            yield from ((name, element) for element in _flat(data[name]))
        return
    rows = data if isinstance(data, list) else [data]
    if rows and not isinstance(rows[0], dict):  # without a name, it is the only column
        yield from ((name, element) for name in names for element in _flat(rows))
        return
    for row in rows:
        if isinstance(row, dict):
            yield from (
                (name, element) for name in names & row.keys() for element in _flat(row[name])
            )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _is_base64(element: Any) -> bool:
    try:
        base64.b64decode(element, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return False
    return isinstance(element, str)


def decoded(data: Any, names: frozenset[str]) -> Any:
    """What MLflow made of `inputs` or `instances`, with the bytes that the base64 in binary columns means.

    Frames are of the other forms, where MLflow has decoded them.
    """
    if isinstance(data, dict):
        return {name: _decoded(value) if name in names else value for name, value in data.items()}
    if isinstance(data, list):
        return [decoded(row, names) for row in data]
    return data


def _decoded(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "SU":
        found = np.empty(value.shape, dtype=object)
        # Not by an array of bytes: NumPy would cut the zeros at the end of each.
        for at, element in np.ndenumerate(value):
            found[at] = base64.b64decode(element)
        return found
    return base64.b64decode(value) if isinstance(value, bytes | str) else value
