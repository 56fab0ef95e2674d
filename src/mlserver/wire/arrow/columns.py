"""Arrow columns <-> tensors.

| column | datatype | content type |
|---|---|---|
| integers, floats, booleans | by type; missing floats are NaN | |
| integers with missing values | FP64 while exact, else refused | |
| text, also as a dictionary | BYTES; missing ones stay missing | |
| bytes | BYTES, base64 | base64 |
| timestamps, dates | BYTES, ISO 8601, NaT where missing | datetime |
| lists of n numbers each, none missing | by type, shape [rows, n] | |
| other lists, structures, booleans with missing values | BYTES, JSON | pd_json |
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from ...errors import InvalidInput
from ...tensor import element_count
from ...types import Parameters, RequestInput, ResponseOutput, TensorData
from ..proto.contents import read_bytes_elements

_EXACT = 2**53  # integers up to here are exact as FP64
_NUMBERS = {
    pa.int8(): "INT8",
    pa.int16(): "INT16",
    pa.int32(): "INT32",
    pa.int64(): "INT64",
    pa.uint8(): "UINT8",
    pa.uint16(): "UINT16",
    pa.uint32(): "UINT32",
    pa.uint64(): "UINT64",
    pa.float16(): "FP16",
    pa.float32(): "FP32",
    pa.float64(): "FP64",
}
_TYPES = {datatype: kind for kind, datatype in _NUMBERS.items()}
_TEXTS = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


def index_names(schema: Any) -> set[str]:
    """Return the names of columns that hold a DataFrame's row labels; they are not inputs."""
    note = (schema.metadata or {}).get(b"pandas")
    try:
        labels = json.loads(note)["index_columns"] if note else []
        return {label for label in labels if isinstance(label, str)}
    except (ValueError, KeyError, TypeError):
        return set()


# -- reading --


def check_types(schema: Any) -> None:
    """Check the types of columns.

    Raises:
        InvalidInput: no tensor can hold a column's type.
    """
    for field in schema:
        if not _is_readable(field.type):
            expected = "numbers, booleans, text, bytes, dates, timestamps, lists or structures"
            raise InvalidInput(f"column '{field.name}'", expected, f"Arrow's {field.type}")


def _is_readable(kind: Any, inside: bool = False) -> bool:
    if kinds.is_dictionary(kind):
        return not inside and (kind.value_type in _TEXTS or kind.value_type in _NUMBERS)
    if kinds.is_struct(kind):
        return all(
            _is_readable(kind.field(position).type, True) for position in range(kind.num_fields)
        )
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _is_readable(kind.value_type, True)
    if inside and (kinds.is_string_view(kind) or kinds.is_binary_view(kind)):
        return False  # views may refer to one text many times, which the limits do not count
    if kind in _NUMBERS or kind in _TEXTS or kind in _BYTES or kinds.is_boolean(kind):
        return True
    return bool(kinds.is_date(kind) or kinds.is_timestamp(kind))


def read(name: str, column: Any) -> RequestInput:
    """Return the tensor of a column: shape [rows, 1], or [rows, n] for lists of n numbers.

    Raises:
        InvalidInput: a column with missing values has integers over 2**53, which FP64 rounds.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if kind in _NUMBERS:
        return _build_tensor(name, *_read_numbers(name, array))
    if kinds.is_boolean(kind) and not array.null_count:
        data = TensorData.from_array(array.to_numpy(zero_copy_only=False))
        return _build_tensor(name, "BOOL", data, len(array))
    if kinds.is_fixed_size_list(kind) and kind.value_type in _NUMBERS and not array.null_count:
        values = array.flatten()
        if not values.null_count:
            return _read_lists(name, values, len(array), kind.list_size)
    return _build_tensor(name, "BYTES", *_read_elements(array), len(array))


def _read_numbers(name: str, array: Any) -> tuple[str, TensorData, int]:
    datatype, rows = _NUMBERS[array.type], len(array)
    if not array.null_count:
        return datatype, _read_block(array, datatype), rows
    if not kinds.is_floating(array.type):
        bounds = pc.min_max(array).as_py()
        if max(abs(bounds["min"] or 0), abs(bounds["max"] or 0)) > _EXACT:
            raise InvalidInput(
                f"column '{name}'", "no missing values beside integers over 2**53", "both"
            )
        array, datatype = array.cast(pa.float64()), "FP64"
    return datatype, TensorData.from_array(array.to_numpy(zero_copy_only=False)), rows


def _read_block(array: Any, datatype: str) -> TensorData:
    """Return a view of the bytes of an array of numbers without missing values."""
    size, buffer = array.type.bit_width // 8, array.buffers()[1]
    view = memoryview(buffer) if buffer is not None else memoryview(b"")
    raw = view[array.offset * size : (array.offset + len(array)) * size]
    return TensorData.from_trusted_raw(raw, datatype, [len(array), 1])


def _read_lists(name: str, values: Any, rows: int, size: int) -> RequestInput:
    datatype = _NUMBERS[values.type]
    data = TensorData.from_trusted_raw(
        memoryview(_read_block(values, datatype).raw or b""), datatype, [rows, size]
    )
    return RequestInput(name=name, shape=[rows, size], datatype=datatype, data=data)


def _read_elements(array: Any) -> tuple[TensorData, str | None]:
    """Return the elements of a column of other types, and their content type."""
    kind = array.type
    if kind in _TEXTS:
        texts = array.cast(pa.large_string()).to_numpy(zero_copy_only=False).tolist()
        return TensorData(texts), None
    if kind in _BYTES and not array.null_count:
        return TensorData([base64.b64encode(value) for value in array.to_pylist()]), "base64"
    if kinds.is_date(kind) or kinds.is_timestamp(kind):
        texts = ["NaT" if value is None else value.isoformat() for value in array.to_pylist()]
        return TensorData(texts), "datetime"
    return TensorData(
        [json.dumps(value, default=_to_text) for value in array.to_pylist()]
    ), "pd_json"


def _to_text(value: Any) -> str:
    """Return a date in a list or structure as ISO 8601, bytes as Base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value.isoformat())


def _build_tensor(name: str, datatype: str, data: TensorData, *rest: Any) -> RequestInput:
    *content_types, rows = rest
    tensor = RequestInput(name=name, shape=[rows, 1], datatype=datatype, data=data)
    if content_types and content_types[0] is not None:
        tensor.parameters = Parameters(content_type=content_types[0])
    return tensor


# -- writing --


def write(output: ResponseOutput) -> Any:
    """Return the column of an output: one element per row, or a list of numbers if it is wider."""
    datatype, shape = str(output.datatype), list(output.shape)
    if datatype == "BYTES":
        array = _write_texts(output)
    elif datatype in _TYPES:
        raw = output.data.to_raw(datatype, shape)
        array = pa.Array.from_buffers(
            _TYPES[datatype], element_count(shape), [None, pa.py_buffer(raw)]
        )
    else:  # BOOL, one bit each in Arrow, and BF16, which Arrow does not have
        array = pa.array(output.data.to_array(datatype, shape).reshape(-1))
    width = element_count(shape[1:])
    return array if width == 1 else pa.FixedSizeListArray.from_arrays(array, width)


def _write_texts(output: ResponseOutput) -> Any:
    elements = read_bytes_elements(output.data, output.shape)
    content_type = output.parameters.content_type if output.parameters is not None else None
    if content_type == "base64":
        return pa.array([base64.b64decode(element) for element in elements], pa.binary())
    try:
        texts = pa.array([element.decode() for element in elements], pa.string())
    except UnicodeDecodeError:
        return pa.array(elements, pa.binary())
    if content_type == "datetime":
        return _write_datetimes(texts)
    return _write_json(texts) if content_type == "pd_json" else texts


def _write_json(texts: Any) -> Any:
    """Return JSON as text; if every element is a string or null, the strings themselves."""
    try:
        return pa.array([json.loads(text) for text in texts.to_pylist()], pa.string())
    except (ValueError, TypeError, pa.ArrowException):
        return texts


def _write_datetimes(texts: Any) -> Any:
    """Return ISO 8601 texts as timestamps, in UTC if they have zones; other texts unchanged."""
    values = pc.if_else(pc.equal(texts, "NaT"), None, texts)
    for zone in (None, "UTC"):
        try:
            return values.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return texts
