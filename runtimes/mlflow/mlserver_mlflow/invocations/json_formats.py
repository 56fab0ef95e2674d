"""MLflow's JSON forms -> V2 inputs or packed rows, where that is provably what MLflow makes of them; None wherever there is a doubt.

`config` is the plan that the runtime made at load, as plain values:

    {"kind": "columns", "columns": [[name, MLflow type], ...]}            a signature of named, required, numeric columns
    {"kind": "tensors", "tensors": [[name, datatype, shape], ...], "named": bool}
    {}                                                                    nothing is read here

A column's elements must be JSON numbers of the column's own kind (or `true`/`false`): `struct` refuses whatever else
there is (null, text, nesting, fractions for an integer, numbers out of range), and the body goes to MLflow's own code.
This module is light: the server's front end imports it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
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
# In a list of objects under `inputs` every cell is a NumPy scalar of its own; pandas widens the narrow ones, which MLflow refuses.
OBJECT_TYPES = frozenset(("boolean", "long", "double"))
TENSOR_DTYPES = {
    "BOOL": "?",
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
# Integers beyond this are rounded on their way to a narrow float once here, but perhaps twice in pandas.
EXACT = 2**53

Table = list[Sequence[Any]]
Inputs = list[RequestInput] | RowBlock


def read_request(body: bytes | str, config: dict[str, Any]) -> InferenceRequest | None:
    """The request that a JSON body means, or None if MLflow's own code must say."""
    inputs = _read_inputs(body, config)
    if inputs is None:
        return None
    if isinstance(inputs, RowBlock):
        return RowBlockRequest.from_rows(inputs)
    return InferenceRequest.build(
        {"id": None, "parameters": None, "inputs": inputs, "outputs": None}
    )


def _read_inputs(body: bytes | str, config: dict[str, Any]) -> Inputs | None:
    plan = _plan(config)
    if plan is None:
        return None
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(payload) is not dict or len(payload) != 1:
        return None
    ((form, value),) = payload.items()
    try:
        return plan.read(form, value)
    except (struct.error, TypeError, ValueError, KeyError, OverflowError):
        return None


@dataclass(frozen=True)
class ColumnsReader:
    """A signature of named scalar columns."""

    names: list[str]
    types: list[str]

    def read(self, form: str, value: Any) -> Inputs | None:
        if form == "dataframe_split":
            rows = self._split(value)
        elif form == "dataframe_records":
            rows = self._objects(value)
        elif form in ("inputs", "instances"):
            if type(value) is dict:
                return self._from_columns(value)
            if (
                type(value) is list
                and len(self.names) == 1
                and value
                and type(value[0]) is not dict
            ):
                return self._from_columns({self.names[0]: value})
            strict = form == "inputs" and not OBJECT_TYPES.issuperset(self.types)
            rows = None if strict else self._objects(value)
        else:
            return None
        return self._from_rows(rows) if rows else None

    def _split(self, value: Any) -> Table | None:
        if type(value) is not dict or len(value) != 2:
            return None
        columns, rows = value["columns"], value["data"]
        width = len(self.names)
        if type(rows) is not list or not all(
            type(row) is list and len(row) == width for row in rows
        ):
            return None
        if columns == self.names:
            return rows
        if type(columns) is not list or len(columns) != width or set(columns) != set(self.names):
            return None
        order = [columns.index(name) for name in self.names]
        return [[row[at] for at in order] for row in rows]

    def _objects(self, value: Any) -> Table | None:
        width = len(self.names)
        if type(value) is not list or not all(
            type(row) is dict and len(row) == width for row in value
        ):
            return None
        return (
            [self._pick(row) for row in value]
            if width > 1
            else [[row[self.names[0]]] for row in value]
        )

    @cached_property
    def _pick(self) -> itemgetter[Any]:
        return itemgetter(*self.names)

    @cached_property
    def _one_type(self) -> str:
        return self.types[0] if len(set(self.types)) == 1 else ""

    def _from_rows(self, rows: Table) -> Inputs | None:
        if not self._one_type or self._one_type == "boolean":
            return self._from_columns(dict(zip(self.names, zip(*rows, strict=True), strict=True)))
        count = len(rows)
        datatype, code, _ = COLUMN_TYPES[self._one_type]
        elements = rows[0] if count == 1 else list(chain.from_iterable(rows))
        block = _packed(_packer(len(elements), code), elements, self._one_type)
        return None if block is None else RowBlock(self._packed_names, datatype, (1,), count, block)

    @cached_property
    def _packed_names(self) -> tuple[str, ...]:
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
            block = _packed(_packer(count, code), values, kind)
            if block is None:
                return None
            inputs.append(_tensor(name, datatype, [count, 1], block))
        return inputs


@dataclass(frozen=True)
class TensorsReader:
    """A signature of tensors, each with a first dimension of any size."""

    specs: list[tuple[str, str, list[int]]]
    named: bool

    def read(self, form: str, value: Any) -> list[RequestInput] | None:
        if form not in ("inputs", "instances"):
            return None
        names = [name for name, _, _ in self.specs]
        if type(value) is list and value and form == "instances" and type(value[0]) is dict:
            if not self.named or not all(
                type(row) is dict and len(row) == len(names) for row in value
            ):
                return None
            value = {name: [row[name] for row in value] for name in names}
        elif type(value) is list and len(names) == 1:
            value = {names[0]: value}
        elif type(value) is not dict or not self.named:
            return None
        if len(value) != len(names):
            return None
        inputs = [
            _array_input(name, datatype, shape, value[name]) for name, datatype, shape in self.specs
        ]
        found = [tensor for tensor in inputs if tensor is not None]
        same = len({tensor.shape[0] for tensor in found}) == 1
        return found if same and len(found) == len(names) else None


def _array_input(name: str, datatype: str, shape: list[int], value: Any) -> RequestInput | None:
    if type(value) is not list:
        return None
    array = _array(value, datatype)
    if array is None or array.size == 0 or array.ndim != len(shape):
        return None
    if not all(want in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        return None
    return _tensor(name, datatype, list(array.shape), array.tobytes())


def _array(value: list[Any], datatype: str) -> NDArray[Any] | None:
    """`np.array(value, dtype)`, which is what MLflow does, if the numbers' own kind agrees."""
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


def _packed(packer: struct.Struct, values: Sequence[Any], kind: str) -> bytes | None:
    if kind == "boolean" and not _are(bool, values):
        return None
    if kind == "float" and not max(map(abs, values)) < EXACT:
        return None
    return packer.pack(*values)


@lru_cache(maxsize=256)
def _packer(count: int, code: str) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


def _are(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)


def _tensor(name: str, datatype: str, shape: list[int], raw: bytes | memoryview) -> RequestInput:
    return RequestInput.build(
        {
            "name": name,
            "shape": shape,
            "datatype": datatype,
            "parameters": None,
            "data": TensorData.from_trusted_raw(raw, datatype, shape),
        }
    )


_plans: dict[int, tuple[dict[str, Any], ColumnsReader | TensorsReader | None]] = {}
_MAX_PLANS = 4096


def _plan(config: dict[str, Any]) -> ColumnsReader | TensorsReader | None:
    """The plan of a config, made once; the entry holds the config, so that its identity stays its own."""
    known = _plans.get(id(config))
    if known is not None and known[0] is config:
        return known[1]
    if len(_plans) >= _MAX_PLANS:
        _plans.clear()
    plan = _made(config)
    _plans[id(config)] = (config, plan)
    return plan


def _made(config: dict[str, Any]) -> ColumnsReader | TensorsReader | None:
    if config.get("kind") == "columns":
        names, types = zip(*config["columns"], strict=True)
        return ColumnsReader(list(names), list(types))
    if config.get("kind") == "tensors":
        specs = [(name, datatype, list(shape)) for name, datatype, shape in config["tensors"]]
        return TensorsReader(specs, bool(config["named"]))
    return None
