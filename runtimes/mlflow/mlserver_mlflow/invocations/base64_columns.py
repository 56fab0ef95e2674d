"""Base64 in `inputs` and `instances` of `/invocations`, on request (`extra.base64_inputs`).

MLflow decodes base64 in `dataframe_split` and `dataframe_records` only. In the other two forms the
base64 characters themselves become the bytes of a binary column, so a client that sends base64 gets
a wrong result and no error. With the setting, binary columns hold base64 in all forms; other text
is refused with the column's name.
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


def get_base64_columns(
    schema: Schema | None, extra: dict[str, Any], has_type_hint: bool
) -> frozenset[str]:
    """Return the names of the columns to decode; empty unless the setting is on.

    Args:
        extra: The model's `parameters.extra`.
        has_type_hint: MLflow itself decodes base64 in every form then.

    Raises:
        MLServerError: the setting is not a boolean.
    """
    is_on = extra.get(SETTING, False)
    if not isinstance(is_on, bool):
        raise MLServerError(f"'{SETTING}' must be true or false: received {is_on!r}", 500)
    if not is_on or schema is None or has_type_hint or not schema.has_input_names():
        return frozenset()
    specs = [spec for spec in schema.inputs if isinstance(spec, ColSpec)]
    return frozenset(str(spec.name) for spec in specs if spec.type == DataType.binary)


def check_base64(body: bytes | str, names: frozenset[str]) -> None:
    """Check the elements of binary columns; invalid JSON is left to MLflow.

    Raises:
        ValueError: an element is not base64; the text names the column.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    for form in FORMS:
        elements = _iterate_elements(document[form], names) if form in document else ()
        for name, element in elements:
            if not _is_base64(element):
                raise ValueError(
                    f"Column '{name}' is binary: expected base64 text (setting '{SETTING}')"
                )


def _iterate_elements(data: Any, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield (column, element) of the binary columns in a form's data of any shape."""
    if isinstance(data, dict):
        for name in names & data.keys():
            yield from ((name, element) for element in _flatten(data[name]))
        return
    rows = data if isinstance(data, list) else [data]
    if rows and not isinstance(rows[0], dict):  # values without a name belong to the only column
        for name in names:
            yield from ((name, element) for element in _flatten(rows))
        return
    for row in rows:
        if isinstance(row, dict):
            yield from _iterate_elements(row, names)


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    else:
        yield value


def _is_base64(element: Any) -> bool:
    try:
        base64.b64decode(element, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return False
    return isinstance(element, str)


def decode_base64(data: Any, names: frozenset[str]) -> Any:
    """Decode the binary columns of MLflow's data for `inputs` or `instances`.

    A frame is returned unchanged: it was read from the other forms, in which MLflow decodes base64.
    """
    if isinstance(data, dict):
        return {
            name: _decode_value(value) if name in names else value for name, value in data.items()
        }
    if isinstance(data, list):
        return [decode_base64(row, names) for row in data]
    return data


def _decode_value(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "SU":
        # Objects: a bytes dtype of NumPy drops zeros at the end of an element.
        decoded = np.empty(value.shape, dtype=object)
        for index, element in np.ndenumerate(value):
            decoded[index] = base64.b64decode(element)
        return decoded
    return base64.b64decode(value) if isinstance(value, bytes | str) else value
