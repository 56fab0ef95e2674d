"""Python values of any type as JSON values, for outputs of content type `pd_json`."""

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
    """A value that has no form in V2."""

    def __init__(self, value: Any) -> None:
        super().__init__(
            f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        )


def iso(item: Any) -> str:
    return "NaT" if is_missing(item) else str(item.isoformat())


def duration(item: Any) -> str:
    return "NaT" if is_missing(item) else str(pd.Timedelta(item).isoformat())


def to_json(value: Any) -> str:
    """Compact JSON text."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


_INFINITE: dict[float, Any] = {float("inf"): "Infinity", float("-inf"): "-Infinity"}


def plain(value: Any) -> Any:
    """A value as JSON values, all the way down. NaN is null; infinities are the texts "Infinity" and "-Infinity".

    Raises:
        NotEncodableError: some part has no form in JSON.
    """
    if value is None or isinstance(value, str | bool | int):
        return value if not isinstance(value, np.generic) else value.item()
    if isinstance(value, float):
        return _INFINITE.get(value, float(value)) if value == value else None
    if isinstance(value, dict):
        return {label(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _plain_other(value)


def _plain_other(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return plain(value.astype(object).tolist() if value.dtype.kind in "Mm" else value.tolist())
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict(orient="records"))
    if isinstance(value, pd.Series):
        return plain(value.tolist())
    if is_missing(value):
        return None
    if isinstance(value, dt.date | dt.time | pd.Timestamp):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return duration(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.generic):
        item = value.item()
        if isinstance(item, np.generic):  # wider than Python's own numbers
            raise NotEncodableError(value)
        return plain(item)
    if isinstance(value, pydantic.BaseModel):
        return plain(value.model_dump())
    if is_dataclass(value):
        return plain(dataclasses.asdict(value))
    raise NotEncodableError(value)


def is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_missing(item: Any) -> bool:
    if item is None or item is pd.NA or item is pd.NaT:
        return True
    return isinstance(item, float) and item != item


def label(label: Any) -> str:
    return "_".join(map(str, label)) if isinstance(label, tuple) else str(label)
