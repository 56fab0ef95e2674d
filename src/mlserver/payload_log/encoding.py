"""Events as JSON: lines of a file, and bodies of CloudEvents. Masks are applied here. Pure.

Both hold the tensors as the V2 protocol's JSON does. A tensor without `data` has a parameter that
says why: `masked` (the reason) or `omitted_bytes` (its size). Missing values and NaN are null.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from ..parallel.rpc.protocol import plain_value
from ..types import TensorData
from ..types.row_block import RowBlock
from .events import ModelLog, PayloadEvent, TensorCopy

# Reasons in the parameter `masked`.
BY_NAME = "setting 'payload_log.mask'"
UNKNOWN_INPUT = "not an input of the model"
UNREADABLE = "names of columns are not known"

_encoder = msgspec.json.Encoder(enc_hook=plain_value)
_TENSORS = {"request": "inputs", "response": "outputs"}


def encode_line(event: PayloadEvent) -> bytes:
    """Return one line of JSON with a line feed."""
    log = event.log
    document: dict[str, Any] = {
        "time": format_time(event.time),
        "type": event.kind,
        "id": event.request_id,
        "model": log.name,
        "version": log.version,
    }
    if event.index:
        document["index"] = event.index
    _add_content(document, event)
    return _encoder.encode(document) + b"\n"


def encode_body(event: PayloadEvent) -> bytes:
    """Return the V2 request or response of an event that is not an error."""
    document: dict[str, Any] = {"id": event.request_id}
    if event.kind == "response":
        document["model_name"] = event.log.name
        if event.log.version is not None:
            document["model_version"] = event.log.version
    _add_content(document, event)
    return _encoder.encode(document)


def format_time(seconds: float) -> str:
    """Return a time as RFC 3339 with microseconds, in UTC."""
    whole = int(seconds)
    return f"{_format_second(whole)}.{int((seconds - whole) * 1e6):06}Z"


@lru_cache(maxsize=2)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _add_content(document: dict[str, Any], event: PayloadEvent) -> None:
    if event.error is not None:
        code, status = event.error
        document["error"] = {"code": code, "status": status}
        return
    parameters = event.parameters
    if parameters:
        masks = event.log.masks
        parameters = {key: value for key, value in parameters.items() if key not in masks}
        document["parameters"] = parameters
    if event.rows is not None:
        document["inputs"] = _encode_rows(event.rows, event.log)
    else:
        document[_TENSORS[event.kind]] = list(_encode_tensors(event))


def _encode_tensors(event: PayloadEvent) -> Iterator[dict[str, Any]]:
    reader = event.log.readers.get((event.parameters or {}).get("content_type", ""))
    if reader is not None and len(event.tensors) == 1 and event.tensors[0].data is not None:
        yield from _encode_unread(event, event.tensors[0], reader)
        return
    for index, tensor in enumerate(event.tensors):
        reason = get_mask_reason(event.log, event.kind, tensor.name)
        name = tensor.name if reason != UNKNOWN_INPUT else f"unknown {index + 1}"
        yield _encode_tensor(tensor._replace(name=name), reason)


def get_mask_reason(log: ModelLog, kind: str, name: str) -> str | None:
    """Return why the values of a tensor or column are not logged; None = they are logged.

    With masks, inputs that the model does not declare are masked too, with their names: a matrix of
    unnamed columns may hold the column that a mask names, and the header of a CSV body without one
    is its first row.
    """
    if name in log.masks or name.strip() in log.masks:
        return BY_NAME
    if kind == "request" and log.masks and log.inputs and name not in log.inputs:
        return UNKNOWN_INPUT
    return None


def _encode_rows(rows: RowBlock, log: ModelLog) -> msgspec.Raw:
    """Return the JSON of a row block's columns. The parts without data are cached."""
    heads = _encode_row_heads(
        rows.names, rows.datatype, (rows.row_count, *rows.shape), log.masks, log.inputs
    )
    width = len(rows.names)
    elements = _read_elements(rows.block, rows.datatype, [rows.row_count * width])
    encode, parts = _encoder.encode, []
    for index, (head, is_masked) in enumerate(heads):
        parts.append(head if is_masked else head + encode(elements[index::width]) + b"}")
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


@lru_cache(maxsize=128)
def _encode_row_heads(
    names: tuple[str, ...],
    datatype: str,
    shape: tuple[int, ...],
    masks: frozenset[str],
    inputs: frozenset[str],
) -> list[tuple[bytes, bool]]:
    """Return for each column the JSON before its data, and whether it is masked.

    Of a masked column, it is the whole JSON.
    """
    log = ModelLog("", None, 0, masks=masks, inputs=inputs)
    heads: list[tuple[bytes, bool]] = []
    for index, name in enumerate(names):
        fields = {"shape": shape, "datatype": datatype}
        is_masked = get_mask_reason(log, "request", name) is not None
        text = _encoder.encode(_encode_column(log, "request", name, index, fields, []))
        heads.append((text if is_masked else text.removesuffix(b"[]}"), is_masked))
    return heads


def _encode_column(
    log: ModelLog, kind: str, name: str, index: int, fields: dict[str, Any], data: list[Any]
) -> dict[str, Any]:
    reason = get_mask_reason(log, kind, name)
    if reason is None:
        return {"name": name, **fields, "data": data}
    name = name if reason != UNKNOWN_INPUT else f"unknown {index + 1}"
    return {"name": name, **fields, "parameters": {"masked": reason}}


def _encode_tensor(tensor: TensorCopy, mask_reason: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype,
    }
    if mask_reason is not None:
        return document | {"parameters": {"masked": mask_reason}}
    parameters = dict(tensor.parameters or {})
    if tensor.data is None:
        return document | {"parameters": parameters | {"omitted_bytes": tensor.size}}
    elements, content_type = _to_text(_read_elements(tensor.data, tensor.datatype, tensor.shape))
    if content_type is not None:
        parameters["content_type"] = content_type
    if parameters:
        document["parameters"] = parameters
    return document | {"data": elements}


def _read_elements(data: Any, datatype: str, shape: list[int]) -> list[Any]:
    """Return the elements of copied data as a flat list, with None for NaN."""
    if isinstance(data, list):
        return data
    if isinstance(data, bytes):
        elements: list[Any] = TensorData.from_trusted_raw(data, datatype, shape).root
        return elements
    plain: list[Any] = TensorData.from_array(data).root
    return plain


def _to_text(elements: list[Any]) -> tuple[list[Any], str | None]:
    """Return elements with bytes as text, and "base64" if one of them is not UTF-8."""
    if not any(isinstance(element, bytes) for element in elements):
        return elements, None
    try:
        return list(_decode(elements)), None
    except UnicodeDecodeError:
        return list(_encode_base64(elements)), "base64"


def _decode(elements: Iterable[Any]) -> Iterator[Any]:
    for element in elements:
        yield element.decode("utf-8") if isinstance(element, bytes) else element


def _encode_base64(elements: Iterable[Any]) -> Iterator[Any]:
    for element in elements:
        content = element.encode("utf-8") if isinstance(element, str) else element
        is_content = isinstance(content, bytes)
        yield base64.b64encode(content).decode("ascii") if is_content else content


# -- unparsed bodies --


def _encode_unread(
    event: PayloadEvent, tensor: TensorCopy, reader: Any
) -> Iterator[dict[str, Any]]:
    """Yield the columns of an unparsed body.

    If they cannot be read, yield the body as one tensor; it is masked if the model has masks.
    """
    elements = _read_elements(tensor.data, tensor.datatype, tensor.shape)
    body = elements[0] if len(elements) == 1 else b""
    content = body.encode("utf-8") if isinstance(body, str) else body
    columns = reader(event.parameters or {}, content) if isinstance(content, bytes) else None
    if columns is None or _may_be_headless(event, columns):
        yield _encode_tensor(tensor, UNREADABLE if event.log.masks else None)
        return
    for index, (name, values) in enumerate(columns.items()):
        fields = {"shape": [len(values)], "datatype": _find_datatype(values)}
        yield _encode_column(event.log, event.kind, name, index, fields, values)


def _may_be_headless(event: PayloadEvent, columns: Iterable[str]) -> bool:
    """Return whether the names of a request's columns may be the values of its first row.

    They may if no mask is among them and the model's inputs are not known.
    """
    log = event.log
    if event.kind == "response" or not log.masks or log.inputs:
        return False
    return log.masks.isdisjoint(name.strip() for name in columns)


def _find_datatype(values: list[Any]) -> str:
    """Return the datatype of JSON values: that of numbers or booleans if all are, else BYTES."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds and kinds <= {int, float} else "BYTES"


def list_unknown_masks(log: ModelLog, outputs: Iterable[str]) -> list[str]:
    """Return the masks that name neither an input nor an output of the model, in order."""
    known = log.inputs.union(outputs)
    return sorted(log.masks - known) if known else []
