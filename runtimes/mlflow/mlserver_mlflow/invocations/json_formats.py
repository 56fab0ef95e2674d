"""Reader of MLflow's JSON forms -> V2 inputs or a row block, equal to MLflow's own reading.

Returns None for every body that MLflow might read differently; MLflow's code then reads it.
`config` is part of the execution plan that the runtime makes at load:

    {"kind": "columns", "columns": [[name, MLflow type], ...]}   named, required, numeric columns
    {"kind": "tensors", "tensors": [[name, datatype, shape], ...], "named": bool}
    {}                                                           no body is read here

Elements must be JSON numbers of the column's kind, or booleans: `struct` refuses null, text, lists,
fractions for an integer and numbers out of range. The server's front end imports this module, so it
loads neither MLflow, pandas nor NumPy (NumPy only for tensors).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from mlserver.types import InferenceRequest, RequestInput, RowBlock, RowBlockRequest, TensorData

if TYPE_CHECKING:
    from numpy.typing import NDArray

# MLflow's column type -> V2 datatype, `struct` code, bytes per element.
COLUMN_TYPES: dict[str, tuple[str, str, int]] = {
    "boolean": ("BOOL", "?", 1),
    "integer": ("INT32", "i", 4),
    "long": ("INT64", "q", 8),
    "float": ("FP32", "f", 4),
    "double": ("FP64", "d", 8),
}
# Types that a list of objects under `inputs` may have: pandas widens the others, and MLflow refuses
# the result.
OBJECT_TYPES = frozenset(("boolean", "long", "double"))
# V2 datatype -> NumPy dtype.
TENSOR_DTYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
# Larger integers are rounded once here on conversion to FP32, but may be rounded twice in pandas.
MAX_EXACT_INTEGER = 2**53

Table = list[Sequence[Any]]
Inputs = list[RequestInput] | RowBlock


def read_request(body: bytes | str, config: dict[str, Any]) -> InferenceRequest | None:
    """Return the request that a JSON body means; None if only MLflow's code can read it."""
    inputs = _read_inputs(body, config)
    if inputs is None:
        return None
    if isinstance(inputs, RowBlock):
        return RowBlockRequest.from_rows(inputs)
    return InferenceRequest.build(
        {"id": None, "parameters": None, "inputs": inputs, "outputs": None}
    )


def _read_inputs(body: bytes | str, config: dict[str, Any]) -> Inputs | None:
    reader = _get_reader(config)
    if reader is None:
        return None
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(payload) is not dict or len(payload) != 1:
        return None
    ((form, value),) = payload.items()
    try:
        return reader.read(form, value)
    except (struct.error, TypeError, ValueError, KeyError, OverflowError):
        return None


@dataclass(frozen=True)
class ColumnsReader:
    """Reader for a signature of named scalar columns."""

    names: list[str]
    types: list[str]

    def read(self, form: str, value: Any) -> Inputs | None:
        if form == "dataframe_split":
            rows = self._read_split(value)
        elif form == "dataframe_records":
            rows = self._read_objects(value)
        elif form in ("inputs", "instances"):
            if type(value) is dict:
                return self._from_columns(value)
            is_list = type(value) is list and bool(value)
            if is_list and len(self.names) == 1 and type(value[0]) is not dict:
                return self._from_columns({self.names[0]: value})
            if form == "inputs" and not OBJECT_TYPES.issuperset(self.types):
                return None
            rows = self._read_objects(value)
        else:
            return None
        return self._from_rows(rows) if rows else None

    def _read_split(self, value: Any) -> Table | None:
        if type(value) is not dict or len(value) != 2:
            return None
        columns, rows = value["columns"], value["data"]
        width = len(self.names)
        if type(rows) is not list:
            return None
        if not all(type(row) is list and len(row) == width for row in rows):
            return None
        if columns == self.names:
            return rows
        if type(columns) is not list or len(columns) != width or set(columns) != set(self.names):
            return None
        select = itemgetter(*[columns.index(name) for name in self.names])
        return list(map(select, rows))

    def _read_objects(self, value: Any) -> Table | None:
        width = len(self.names)
        if type(value) is not list:
            return None
        if not all(type(row) is dict and len(row) == width for row in value):
            return None
        if width == 1:
            return [[row[self.names[0]]] for row in value]
        return [self._select_values(row) for row in value]

    @cached_property
    def _select_values(self) -> itemgetter[Any]:
        return itemgetter(*self.names)

    @cached_property
    def _common_type(self) -> str:
        return self.types[0] if len(set(self.types)) == 1 else ""

    def _from_rows(self, rows: Table) -> Inputs | None:
        if not self._common_type or self._common_type == "boolean":
            return self._from_columns(dict(zip(self.names, zip(*rows, strict=True), strict=True)))
        count = len(rows)
        datatype, code, _ = COLUMN_TYPES[self._common_type]
        elements = rows[0] if count == 1 else list(chain.from_iterable(rows))
        block = _pack(_get_packer(len(elements), code), elements, self._common_type)
        return None if block is None else RowBlock(self._block_names, datatype, (1,), count, block)

    @cached_property
    def _block_names(self) -> tuple[str, ...]:
        return tuple(self.names)

    def _from_columns(self, columns: dict[str, Any]) -> list[RequestInput] | None:
        if len(columns) != len(self.names):
            return None
        inputs, count = [], len(columns[self.names[0]])
        for name, kind in zip(self.names, self.types, strict=True):
            values = columns[name]
            datatype, code, _ = COLUMN_TYPES[kind]
            if type(values) not in (list, tuple) or len(values) != count or count == 0:
                return None
            block = _pack(_get_packer(count, code), values, kind)
            if block is None:
                return None
            inputs.append(_build_input(name, datatype, [count, 1], block))
        return inputs


@dataclass(frozen=True)
class TensorsReader:
    """Reader for a signature of tensors, each with a variable number of rows."""

    specs: list[tuple[str, str, list[int]]]
    named: bool

    def read(self, form: str, value: Any) -> list[RequestInput] | None:
        if form not in ("inputs", "instances"):
            return None
        names = [name for name, _, _ in self.specs]
        if type(value) is list and value and form == "instances" and type(value[0]) is dict:
            if not self.named:
                return None
            if not all(type(row) is dict and len(row) == len(names) for row in value):
                return None
            value = {name: list(map(itemgetter(name), value)) for name in names}
        elif type(value) is list and len(names) == 1:
            value = {names[0]: value}
        elif type(value) is not dict or not self.named:
            return None
        if len(value) != len(names):
            return None
        inputs: list[RequestInput] = []
        for name, datatype, shape in self.specs:
            tensor = _read_tensor(name, datatype, shape, value[name])
            if tensor is None or tensor.shape[0] != (inputs or [tensor])[0].shape[0]:
                return None
            inputs.append(tensor)
        return inputs


def _read_tensor(name: str, datatype: str, shape: list[int], value: Any) -> RequestInput | None:
    if type(value) is not list:
        return None
    array = _to_array(value, datatype)
    if array is None or array.size == 0 or array.ndim != len(shape):
        return None
    if not all(allowed in (-1, size) for allowed, size in zip(shape, array.shape, strict=True)):
        return None
    return _build_input(name, datatype, list(array.shape), array.tobytes())


def _to_array(value: list[Any], datatype: str) -> NDArray[Any] | None:
    """Return `np.array(value, dtype)`, as MLflow does; None if the numbers are of another kind."""
    import numpy as np

    dtype = np.dtype(TENSOR_DTYPES[datatype])
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(value, dtype=dtype)
    array = np.array(value)
    if dtype.kind == "b":
        return array if array.dtype.kind == "b" else None
    if array.dtype.kind not in "bi" or array.size == 0:
        return None
    limits = np.iinfo(dtype)
    fits = limits.min <= int(array.min()) and int(array.max()) <= limits.max
    return array.astype(dtype) if fits else None


def _pack(packer: struct.Struct, values: Sequence[Any], kind: str) -> bytes | None:
    if kind == "boolean" and not all(type(value) is bool for value in values):
        return None
    if kind == "float" and not max(map(abs, values)) < MAX_EXACT_INTEGER:
        return None
    return packer.pack(*values)


@lru_cache(maxsize=256)
def _get_packer(count: int, code: str) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


def _build_input(
    name: str, datatype: str, shape: list[int], raw: bytes | memoryview
) -> RequestInput:
    return RequestInput.build(
        {
            "name": name,
            "shape": shape,
            "datatype": datatype,
            "parameters": None,
            "data": TensorData.from_trusted_raw(raw, datatype, shape),
        }
    )


# id of a config -> the config, which keeps its id from being reused, and its reader.
_readers: dict[int, tuple[dict[str, Any], ColumnsReader | TensorsReader | None]] = {}
_MAX_READERS = 4096


def _get_reader(config: dict[str, Any]) -> ColumnsReader | TensorsReader | None:
    """Return the reader of a route's config, built once per config object."""
    entry = _readers.get(id(config))
    if entry is not None and entry[0] is config:
        return entry[1]
    if len(_readers) >= _MAX_READERS:
        _readers.clear()
    reader = _build_reader(config)
    _readers[id(config)] = (config, reader)
    return reader


def _build_reader(config: dict[str, Any]) -> ColumnsReader | TensorsReader | None:
    if config.get("kind") == "columns":
        names, types = zip(*config["columns"], strict=True)
        return ColumnsReader(list(names), list(types))
    if config.get("kind") == "tensors":
        specs = [(name, datatype, list(shape)) for name, datatype, shape in config["tensors"]]
        return TensorsReader(specs, bool(config["named"]))
    return None
