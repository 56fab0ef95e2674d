"""Bodies to show in a model's OpenAPI document: its input example for `/invocations`, and the same as a V2 request.

They travel in the config of the route `/invocations`, so that no metadata answer grows by them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from typing import Any

from mlserver.types import MetadataTensor

FILE = "serving_input_example.json"
# Bytes of JSON, each; of a larger frame the first row is shown.
MOST = 16 * 1024
READABLE = 1024 * 1024

Document = dict[str, Any]
_VALUES = {
    "boolean": False,
    "integer": 0,
    "long": 0,
    "float": 0.0,
    "double": 0.0,
    "string": "text",
    "binary": "dGV4dA==",
    "datetime": "2000-01-01T00:00:00",
    "any": "text",
}
_SCALARS = {
    "BOOL": "boolean",
    "INT32": "integer",
    "INT64": "long",
    "FP32": "float",
    "FP64": "double",
}


def of(folder: str) -> Document | None:
    """The body for `/invocations`; None if the model has no example, or a large one."""
    path = os.path.join(folder, FILE)
    try:
        if os.path.getsize(path) > READABLE:
            return None
        with open(path, encoding="utf-8") as file:
            body = _without_nan(json.load(file))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    split = body.get("dataframe_split")
    if _size(body) > MOST and isinstance(split, dict) and isinstance(split.get("data"), list):
        body = {
            **body,
            "dataframe_split": {"columns": split.get("columns"), "data": split["data"][:1]},
        }
    return body if _size(body) <= MOST else None


def as_request(body: Document, inputs: Iterable[MetadataTensor]) -> Document | None:
    """The V2 request that means the same, for a model with these inputs; None where that is not plain."""
    split, data = body.get("dataframe_split"), body.get("inputs")
    try:
        if isinstance(split, dict):
            rows = dict(
                zip(map(str, split["columns"]), zip(*split["data"], strict=True), strict=True)
            )
            tensors = [
                _column(tensor, rows[tensor.name]) for tensor in inputs if tensor.name in rows
            ]
        elif isinstance(data, dict):
            tensors = [
                _array(tensor, data[tensor.name]) for tensor in inputs if tensor.name in data
            ]
        elif isinstance(data, list):
            (tensor,) = inputs
            is_column = tensor.shape == [-1, 1] and not any(
                isinstance(value, list) for value in data
            )
            tensors = [_column(tensor, data) if is_column else _array(tensor, data)]
        else:  # an agent's: its columns are the body's fields
            tensors = [
                _column(tensor, [body[tensor.name]]) for tensor in inputs if tensor.name in body
            ]
    except (KeyError, TypeError, ValueError):
        return None
    if not tensors:
        return None
    params = {"parameters": body["params"]} if body.get("params") else {}
    request = {**params, "inputs": tensors}
    return request if _size(request) <= MOST else None


def made_up(inputs: Iterable[MetadataTensor]) -> Document | None:
    """A V2 request of one row, made from the types of the columns that must be there; None if it would be large."""
    needed = [tensor for tensor in inputs if _extra(tensor).get("required") is not False]
    if not needed or sum(_count(tensor) for tensor in needed) > MOST:
        return None
    request = {"inputs": [_made_up_tensor(tensor) for tensor in needed]}
    return request if _size(request) <= MOST else None


def _count(tensor: MetadataTensor) -> int:
    return math.prod(1 if size < 0 else size for size in tensor.shape)


def _made_up_tensor(tensor: MetadataTensor) -> Document:
    """One row: a column of one value, or a tensor of the signature's shape with 1 for every open dimension."""
    if "mlflow_type" in _extra(tensor):
        return _column(tensor, [_made_up(tensor)])
    shape = [1 if size < 0 else size for size in tensor.shape]
    element = _element(str(tensor.datatype), "", _made_up(tensor))
    return {
        "name": tensor.name,
        "shape": shape,
        "datatype": str(tensor.datatype),
        "data": [element] * _count(tensor),
    }


def _extra(tensor: MetadataTensor) -> Document:
    return (tensor.parameters.model_extra if tensor.parameters is not None else None) or {}


def _made_up(tensor: MetadataTensor) -> Any:
    kind = tensor.parameters.content_type if tensor.parameters is not None else None
    scalar = {"base64": "binary", "datetime": "datetime"}.get(
        kind or "", _SCALARS.get(str(tensor.datatype), "string")
    )
    return _value(_extra(tensor).get("mlflow_type", {"type": scalar}))


def _value(kind: Document) -> Any:
    """A value of a type as MLflow's signatures write it."""
    if kind["type"] == "array":
        return [_value(kind["items"])]
    if kind["type"] == "object":
        return {name: _value(own) for name, own in kind["properties"].items()}
    if kind["type"] == "map":
        return {"key": _value(kind["values"])}
    return _VALUES[kind["type"]]


def _column(tensor: MetadataTensor, values: Iterable[Any]) -> Document:
    kind = (tensor.parameters.content_type if tensor.parameters is not None else None) or ""
    elements = [_element(str(tensor.datatype), kind, value) for value in values]
    return {
        "name": tensor.name,
        "shape": [len(elements), 1],
        "datatype": str(tensor.datatype),
        "data": elements,
    }


def _element(datatype: str, kind: str, value: Any) -> Any:
    """One value of a column. Raises `TypeError` for what V2 has no element for."""
    if kind == "pd_json":
        return json.dumps(value)
    if datatype == "BYTES":
        if not isinstance(value, str):
            raise TypeError
        return (
            "".join(value.split()) if kind == "base64" else value
        )  # MLflow breaks base64 into lines
    if value is None and not datatype.startswith("FP"):
        raise TypeError
    return value


def _array(tensor: MetadataTensor, value: Any) -> Document:
    """A nested list as a tensor of the signature's rank. Raises `ValueError` for any other."""
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) != len(tensor.shape) or not math.prod(shape):
        raise ValueError
    return {"name": tensor.name, "shape": shape, "datatype": str(tensor.datatype), "data": value}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _size(value: Any) -> int:
    return len(json.dumps(value))
