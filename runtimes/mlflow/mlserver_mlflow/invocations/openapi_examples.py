"""Example bodies for a model's OpenAPI document: its input example, and the same as a V2 request.

They are part of the config of the route `/invocations`, which keeps metadata responses small.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from typing import Any

from mlserver.types import MetadataTensor

EXAMPLE_FILE = "serving_input_example.json"
# Bytes of JSON per example; a larger frame is cut to its first row.
MAX_SHOWN_BYTES = 16 * 1024
MAX_READ_BYTES = 1024 * 1024

Document = dict[str, Any]
# MLflow's scalar type -> a value of it.
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
# V2 datatype -> MLflow's scalar type.
_SCALARS = {
    "BOOL": "boolean",
    "INT32": "integer",
    "INT64": "long",
    "FP32": "float",
    "FP64": "double",
}


def read_example(folder: str) -> Document | None:
    """Return the model's example for `/invocations`; None if it has none or a large one."""
    path = os.path.join(folder, EXAMPLE_FILE)
    try:
        if os.path.getsize(path) > MAX_READ_BYTES:
            return None
        with open(path, encoding="utf-8") as file:
            body = _replace_nan(json.load(file))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    split = body.get("dataframe_split")
    is_frame = isinstance(split, dict) and isinstance(split.get("data"), list)
    if isinstance(split, dict) and is_frame and _get_size(body) > MAX_SHOWN_BYTES:
        first_row = {"columns": split.get("columns"), "data": split["data"][:1]}
        body = {**body, "dataframe_split": first_row}
    return body if _get_size(body) <= MAX_SHOWN_BYTES else None


def to_v2_request(body: Document, inputs: Iterable[MetadataTensor]) -> Document | None:
    """Return the V2 request that is equivalent to a scoring body; None if there is none."""
    try:
        tensors = _to_tensors(body, list(inputs))
    except (KeyError, TypeError, ValueError):
        return None
    if not tensors:
        return None
    params = {"parameters": body["params"]} if body.get("params") else {}
    request = {**params, "inputs": tensors}
    return request if _get_size(request) <= MAX_SHOWN_BYTES else None


def _to_tensors(body: Document, inputs: list[MetadataTensor]) -> list[Document]:
    split, data = body.get("dataframe_split"), body.get("inputs")
    if isinstance(split, dict):
        columns = zip(*split["data"], strict=True)
        by_name = dict(zip(map(str, split["columns"]), columns, strict=True))
        return [_make_column(item, by_name[item.name]) for item in inputs if item.name in by_name]
    if isinstance(data, dict):
        return [_make_tensor(item, data[item.name]) for item in inputs if item.name in data]
    if isinstance(data, list):
        (tensor,) = inputs
        has_lists = any(isinstance(value, list) for value in data)
        is_column = tensor.shape == [-1, 1] and not has_lists
        return [_make_column(tensor, data) if is_column else _make_tensor(tensor, data)]
    # The body of an agent: its columns are the body's fields.
    return [_make_column(item, [body[item.name]]) for item in inputs if item.name in body]


def synthesize(inputs: Iterable[MetadataTensor]) -> Document | None:
    """Return a V2 request of one row with a value of the right type in each required column.

    None if the request would exceed MAX_SHOWN_BYTES.
    """
    required = [tensor for tensor in inputs if _get_extra(tensor).get("required") is not False]
    if not required or sum(map(_count_elements, required)) > MAX_SHOWN_BYTES:
        return None
    request = {"inputs": [_synthesize_tensor(tensor) for tensor in required]}
    return request if _get_size(request) <= MAX_SHOWN_BYTES else None


def _count_elements(tensor: MetadataTensor) -> int:
    return math.prod(1 if size < 0 else size for size in tensor.shape)


def _synthesize_tensor(tensor: MetadataTensor) -> Document:
    """Return one row: a column's value, or a tensor with size 1 in each variable dimension."""
    value = _synthesize_value(tensor)
    if "mlflow_type" in _get_extra(tensor):
        return _make_column(tensor, [value])
    element = _make_element(str(tensor.datatype), "", value)
    return {
        "name": tensor.name,
        "shape": [1 if size < 0 else size for size in tensor.shape],
        "datatype": str(tensor.datatype),
        "data": [element] * _count_elements(tensor),
    }


def _get_extra(tensor: MetadataTensor) -> Document:
    return (tensor.parameters.model_extra if tensor.parameters is not None else None) or {}


def _get_content_type(tensor: MetadataTensor) -> str:
    return (tensor.parameters.content_type if tensor.parameters is not None else None) or ""


def _synthesize_value(tensor: MetadataTensor) -> Any:
    scalar = {"base64": "binary", "datetime": "datetime"}.get(
        _get_content_type(tensor), _SCALARS.get(str(tensor.datatype), "string")
    )
    return _get_value_of_type(_get_extra(tensor).get("mlflow_type", {"type": scalar}))


def _get_value_of_type(kind: Document) -> Any:
    """Return a value of a type in the JSON form of MLflow's signatures."""
    if kind["type"] == "array":
        return [_get_value_of_type(kind["items"])]
    if kind["type"] == "object":
        return {name: _get_value_of_type(part) for name, part in kind["properties"].items()}
    if kind["type"] == "map":
        return {"key": _get_value_of_type(kind["values"])}
    return _VALUES[kind["type"]]


def _make_column(tensor: MetadataTensor, values: Iterable[Any]) -> Document:
    datatype, content_type = str(tensor.datatype), _get_content_type(tensor)
    elements = [_make_element(datatype, content_type, value) for value in values]
    return {
        "name": tensor.name,
        "shape": [len(elements), 1],
        "datatype": datatype,
        "data": elements,
    }


def _make_element(datatype: str, content_type: str, value: Any) -> Any:
    """Return the V2 element of a column's value. Raises `TypeError` if there is none."""
    if content_type == "pd_json":
        return json.dumps(value)
    if datatype == "BYTES":
        if not isinstance(value, str):
            raise TypeError
        # MLflow breaks base64 into lines.
        return "".join(value.split()) if content_type == "base64" else value
    if value is None and not datatype.startswith("FP"):
        raise TypeError
    return value


def _make_tensor(tensor: MetadataTensor, value: Any) -> Document:
    """Return a nested list as a tensor of the signature's rank. Raises `ValueError` for others."""
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) != len(tensor.shape) or not math.prod(shape):
        raise ValueError
    return {"name": tensor.name, "shape": shape, "datatype": str(tensor.datatype), "data": value}


def _replace_nan(value: Any) -> Any:
    """Return a JSON value with null in place of NaN and infinities."""
    if isinstance(value, dict):
        return {name: _replace_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_replace_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _get_size(value: Any) -> int:
    return len(json.dumps(value))
