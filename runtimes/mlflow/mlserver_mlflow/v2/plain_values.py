"""Conversion of Python values to JSON values, for outputs of content type `pd_json`."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pydantic


class NotEncodableError(TypeError):
    """A value cannot be encoded in V2; the text is its type."""

    def __init__(self, value: Any) -> None:
        super().__init__(
            f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        )


def format_datetime(item: Any) -> str:
    """Return ISO 8601 text; "NaT" for a missing value."""
    return "NaT" if is_missing(item) else str(item.isoformat())


def format_duration(item: Any) -> str:
    """Return an ISO 8601 duration; "NaT" for a missing value."""
    return "NaT" if is_missing(item) else str(pd.Timedelta(item).isoformat())


def to_json(value: Any) -> str:
    """Return compact JSON text."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


_INFINITE: dict[float, Any] = {float("inf"): "Infinity", float("-inf"): "-Infinity"}


def to_plain(value: Any) -> Any:
    """Return a value as JSON values, recursively.

    NaN becomes null, infinities the texts "Infinity" and "-Infinity".

    Raises:
        NotEncodableError: a part has no JSON form.
    """
    if value is None or isinstance(value, str | bool | int):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return _INFINITE.get(value, float(value)) if value == value else None
    if isinstance(value, dict):
        return {format_label(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return _other_to_plain(value)


def _other_to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        items = value.astype(object) if value.dtype.kind in "Mm" else value
        return to_plain(items.tolist())
    if isinstance(value, pd.DataFrame):
        return to_plain(value.to_dict(orient="records"))
    if isinstance(value, pd.Series):
        return to_plain(value.tolist())
    if is_missing(value):
        return None
    if isinstance(value, dt.date | dt.time | pd.Timestamp):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return format_duration(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.generic):
        item = value.item()
        if isinstance(item, np.generic):  # wider than Python's own numbers
            raise NotEncodableError(value)
        return to_plain(item)
    if isinstance(value, pydantic.BaseModel):
        return to_plain(value.model_dump())
    if is_dataclass(value):
        return to_plain(dataclasses.asdict(value))
    raise NotEncodableError(value)


def is_dataclass(value: Any) -> bool:
    """Whether a value is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_missing(item: Any) -> bool:
    """Whether a value is None, NaN or one of pandas' missing values."""
    if item is None or item is pd.NA or item is pd.NaT:
        return True
    return isinstance(item, float) and item != item


def format_label(label: Any) -> str:
    """Return a column label or dictionary key as the name of an output."""
    return "_".join(map(str, label)) if isinstance(label, tuple) else str(label)
