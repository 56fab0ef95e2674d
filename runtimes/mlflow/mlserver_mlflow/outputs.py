"""What a model's `predict` returns -> a V2 response, for every type that has a form in V2.

Numbers travel as tensors of their own datatype, text, bytes, datetimes and JSON values as BYTES with the content type
that reads them back. An output is called by the signature's name where the signature has as many outputs as there are,
else by its own name (columns, keys), else `output-1`.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from numpy.typing import NDArray

from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse, Parameters, ResponseOutput, TensorData

from .metadata import TENSORS

UNNAMED = "output-1"
NP, STR, BASE64, DATETIME, PD_JSON = "np", "str", "base64", "datetime", "pd_json"


class NotEncodableError(TypeError):
    """A value that has no form in V2."""

    def __init__(self, value: Any) -> None:
        super().__init__(f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins."))


class Encoder:
    """Makes the responses of one model.

    Args:
        names: The signature's output names, empty if it has none.
    """

    def __init__(self, model_name: str, model_version: str | None, names: Sequence[str] = ()) -> None:
        self._name = model_name
        self._version = model_version
        self._only = names[0] if len(names) == 1 else UNNAMED

    def encode(self, result: Any) -> InferenceResponse:
        """The response for a model's result.

        Raises:
            InferenceError: the result has no form in V2; the text names its type.
        """
        try:
            content_type, outputs = self._outputs(result)
        except NotEncodableError as problem:
            text = f"Model '{self._name}' returned a value of type {problem}, which cannot be sent as V2 outputs"
            raise InferenceError(text, 500) from None
        return InferenceResponse.build(
            {
                "model_name": self._name,
                "model_version": self._version,
                "id": None,
                "parameters": _parameters(content_type),
                "outputs": outputs,
            }
        )

    def _outputs(self, result: Any) -> tuple[str | None, list[ResponseOutput]]:
        if isinstance(result, np.ndarray):
            output = of_array(self._only, result)
            return _content_type(output), [output]
        if isinstance(result, pd.DataFrame):
            return "pd", of_frame(result)
        if isinstance(result, pd.Series):
            name = self._only if result.name is None or self._only != UNNAMED else str(result.name)
            return "pd", [of_column(name, result)]
        if isinstance(result, dict):
            return _of_dict(result)
        if isinstance(result, list | tuple):
            output = of_list(self._only, list(result))
        elif hasattr(result, "toarray") and hasattr(result, "nnz"):
            output = of_array(self._only, result.toarray())
        elif isinstance(result, pydantic.BaseModel) or _is_dataclass(result):
            return self._outputs(plain(result))
        else:
            output = of_scalar(self._only, result)
        return _content_type(output), [output]


def tensor(
    name: str, datatype: str, shape: Sequence[int], data: TensorData, content_type: str | None
) -> ResponseOutput:
    """A response output, made without validating what this module knows to be right."""
    parameters = _parameters(content_type)
    values = {"name": name, "shape": list(shape), "datatype": datatype, "parameters": parameters, "data": data}
    return ResponseOutput.build(values)


def _parameters(content_type: str | None) -> Parameters | None:
    return Parameters.build({"content_type": content_type, "headers": None}) if content_type else None


def of_array(name: str, array: NDArray[Any]) -> ResponseOutput:
    """An array of any dtype."""
    shape = [*array.shape, 1] if array.ndim == 1 else [*array.shape] or [1]
    datatype = TENSORS.get((array.dtype.kind, array.dtype.itemsize))
    if datatype is not None:
        return tensor(name, datatype, shape, TensorData.from_array(array), NP)
    flat = array.ravel()
    if array.dtype.kind == "f":
        return tensor(name, "FP64", shape, TensorData.from_array(array.astype("f8")), NP)
    if array.dtype.kind in "US":
        return tensor(name, "BYTES", shape, TensorData([_bytes(item) for item in flat.tolist()]), NP)
    if array.dtype.kind == "M":
        return tensor(name, "BYTES", shape, _texts(map(str, flat)), DATETIME)
    if array.dtype.kind == "m":
        return tensor(name, "BYTES", shape, _texts(pd.Series(flat).map(_duration)), STR)
    if array.dtype.kind == "O":
        items = flat.tolist()
        if all(isinstance(item, str) for item in items):
            return tensor(name, "BYTES", shape, TensorData([_bytes(item) for item in items]), NP)
        return _of_objects(name, items, shape)
    raise NotEncodableError(array[()] if array.ndim == 0 else flat[0] if flat.size else array)


def of_frame(frame: pd.DataFrame) -> list[ResponseOutput]:
    """One output per column."""
    labels = [_label(label) for label in frame.columns]
    names = [label if labels.count(label) == 1 else f"{label}_{at}" for at, label in enumerate(labels)]
    return [of_column(name, frame.iloc[:, at]) for at, name in enumerate(names)]


def of_column(name: str, column: pd.Series[Any]) -> ResponseOutput:
    """One column of a frame; numeric columns carry no content type, `pd` on the response reads them."""
    shape = [len(column), 1]
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = column.astype(dtype.categories.dtype) if not column.hasnans else column.astype(object)
        dtype = column.dtype
    if isinstance(dtype, np.dtype) and (dtype.kind, dtype.itemsize) in TENSORS:
        return tensor(name, TENSORS[dtype.kind, dtype.itemsize], shape, TensorData.from_array(column.to_numpy()), None)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return tensor(name, "BYTES", shape, _texts(_iso(item) for item in column), DATETIME)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return tensor(name, "BYTES", shape, _texts(_duration(item) for item in column), STR)
    if not isinstance(dtype, np.dtype) and pd.api.types.is_numeric_dtype(dtype):
        return _of_nullable(name, column)
    return _of_objects(name, [None if _is_missing(item) else item for item in column.tolist()], shape)


def _of_nullable(name: str, column: pd.Series[Any]) -> ResponseOutput:
    """Numbers with missing values: NaN where a float can say it, else JSON text with null."""
    if not column.isna().any():
        return of_column(name, pd.Series(column.to_numpy(dtype=column.dtype.type)))
    if pd.api.types.is_float_dtype(column.dtype):
        return of_column(name, pd.Series(column.to_numpy(dtype="f8", na_value=np.nan)))
    values = [None if _is_missing(item) else plain(item) for item in column.tolist()]
    return tensor(name, "BYTES", [len(values), 1], _texts(map(to_json, values)), PD_JSON)


def of_list(name: str, items: list[Any]) -> ResponseOutput:
    """A list: text, numbers and equal arrays as tensors, everything else as one JSON value per element."""
    shape = [len(items), 1]
    if all(isinstance(item, bool | int | float | np.number | np.bool_) for item in items) and items:
        array = np.array(items)
        if array.dtype.kind in "biuf":
            return of_array(name, array)
    arrays = items and all(isinstance(item, np.ndarray) and item.dtype.kind in "biuf" for item in items)
    if arrays and len({item.shape for item in items}) == 1:
        return of_array(name, np.stack(items))
    return _of_objects(name, items, shape)


def of_scalar(name: str, value: Any) -> ResponseOutput:
    """One value."""
    if value is None:
        raise NotEncodableError(value)
    if isinstance(value, bool | int | float | np.generic):
        array = np.array(value)
        if array.dtype.kind in "biufMm":
            return of_array(name, array)
    if isinstance(value, str | bytes | bytearray | dt.date | dt.time | pd.Timestamp | pd.Timedelta | dt.timedelta):
        return _of_objects(name, [value], [1])
    return _of_objects(name, [plain(value)], [1])


def _of_dict(result: dict[Any, Any]) -> tuple[str | None, list[ResponseOutput]]:
    if all(isinstance(value, np.ndarray) for value in result.values()):
        return "dict", [of_array(_label(key), value) for key, value in result.items()]
    return None, [of_value(_label(key), value) for key, value in result.items()]


def of_value(name: str, value: Any) -> ResponseOutput:
    """Any value that has a form in V2."""
    if isinstance(value, np.ndarray):
        return of_array(name, value)
    if isinstance(value, list | tuple):
        return of_list(name, list(value))
    if isinstance(value, pd.Series):
        return of_column(name, value)
    if value is None or isinstance(value, dict | pydantic.BaseModel | pd.DataFrame):
        return tensor(name, "BYTES", [1], _texts([to_json(plain(value))]), PD_JSON)
    return of_scalar(name, value)


def _of_objects(name: str, items: list[Any], shape: Sequence[int]) -> ResponseOutput:
    """Python objects: by their common type, else as JSON."""
    known = [item for item in items if item is not None]
    for kinds, content_type, write in _WRITERS:
        if all(isinstance(item, kinds) for item in known) and (known or not items) and len(known) == len(items):
            return tensor(name, "BYTES", shape, TensorData([_bytes(write(item)) for item in items]), content_type)
    if known and all(type(item) in (bool, int, float) for item in known) and len(known) == len(items):
        return of_array(name, np.array(items).reshape(shape))
    return tensor(name, "BYTES", shape, _texts(to_json(plain(item)) for item in items), PD_JSON)


def _b64(item: bytes | bytearray) -> bytes:
    return base64.b64encode(item)


def _iso(item: Any) -> str:
    return "NaT" if _is_missing(item) else str(item.isoformat())


def _duration(item: Any) -> str:
    return "NaT" if _is_missing(item) else str(pd.Timedelta(item).isoformat())


_WRITERS: tuple[tuple[Any, str, Callable[[Any], str | bytes]], ...] = (
    (str, STR, lambda item: item),
    ((bytes, bytearray), BASE64, _b64),
    ((dt.date, pd.Timestamp), DATETIME, _iso),
    ((dt.timedelta, pd.Timedelta), STR, _duration),
)


def to_json(value: Any) -> str:
    """Compact JSON text; what JSON has no form for, NaN included, is null."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON values, all the way down.

    Raises:
        NotEncodableError: some part has no form in JSON.
    """
    if value is None or isinstance(value, str | bool | int):
        return value if not isinstance(value, np.generic) else value.item()
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, dict):
        return {_label(key): plain(item) for key, item in value.items()}
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
    if _is_missing(value):
        return None
    if isinstance(value, dt.date | dt.time | pd.Timestamp):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _duration(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, pydantic.BaseModel):
        return plain(value.model_dump())
    if _is_dataclass(value):
        return plain(dataclasses.asdict(value))
    raise NotEncodableError(value)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_missing(item: Any) -> bool:
    if item is None or item is pd.NA or item is pd.NaT:
        return True
    return isinstance(item, float) and item != item


def _label(label: Any) -> str:
    return "_".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _texts(items: Iterable[str]) -> TensorData:
    return TensorData([item.encode("utf-8") for item in items])


def _bytes(item: str | bytes) -> bytes:
    return item.encode("utf-8") if isinstance(item, str) else item


def _content_type(output: ResponseOutput) -> str | None:
    """The request-level content type that reads a response of this one output."""
    content_type = output.parameters.content_type if output.parameters is not None else None
    return content_type if content_type in (NP, STR) else None
