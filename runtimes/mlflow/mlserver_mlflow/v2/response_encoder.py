"""What a model's `predict` returns -> a V2 response, for every type that has a form in V2.

Numbers travel as tensors of their own datatype, text, bytes, datetimes and JSON values as BYTES with the content type
that reads them back. An output is called by the signature's name where the signature has as many outputs as there are,
else by its own name (columns, keys), else `output-1`.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from mlflow.types import DataType
from numpy.typing import NDArray

from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse, Parameters, ResponseOutput, TensorData

from ..metadata import TENSORS
from .declared_outputs import DeclaredOutputs, Kind, cast, number_type
from .plain_values import (
    NotEncodableError,
    duration,
    is_dataclass,
    is_missing,
    iso,
    label,
    plain,
    to_json,
)

UNNAMED = "output-1"
NP, STR, BASE64, DATETIME, PD_JSON = "np", "str", "base64", "datetime", "pd_json"


class Encoder:
    """Makes the responses of one model.

    Args:
        declared: What the signature says of the outputs.
    """

    def __init__(
        self, model_name: str, model_version: str | None, declared: DeclaredOutputs | None = None
    ) -> None:
        self._name = model_name
        self._version = model_version
        self._declared = declared or DeclaredOutputs()
        names = self._declared.names
        self._only = names[0] if len(names) == 1 else UNNAMED
        # One array may hold all of several declared columns.
        self._kind = (
            self._declared.single if self._declared.single is not None else self._declared.common
        )

    def encode(self, result: Any) -> InferenceResponse:
        """The response for a model's result.

        Raises:
            InferenceError: the result has no form in V2; the text names its type.
        """
        try:
            content_type, outputs = self._outputs(result)
        except NotEncodableError as error:
            text = f"Model '{self._name}' returned a value of type {error}, which cannot be sent as V2 outputs"
            raise InferenceError(text, 500) from None
        except RecursionError:
            text = f"Model '{self._name}' returned a value that contains itself or is nested too deeply"
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
            output = of_array(self._only, result, self._kind)
            return _content_type(output), [output]
        if isinstance(result, pd.DataFrame):
            return "pd", of_frame(result, self._declared)
        if isinstance(result, pd.Series):
            name = self._only if result.name is None or self._only != UNNAMED else str(result.name)
            return "pd", [
                of_column(name, result, self._declared.kind_of(name) or self._declared.single)
            ]
        if isinstance(result, dict):
            return _of_dict(result, self._declared)
        if isinstance(result, list | tuple):
            output = of_list(self._only, list(result), self._kind)
        elif hasattr(result, "toarray") and hasattr(result, "nnz"):
            output = of_array(self._only, result.toarray(), self._kind)
        elif isinstance(result, pydantic.BaseModel) or is_dataclass(result):
            return self._outputs(plain(result))
        elif type(result).__module__.partition(".")[0] == "polars":
            return self._outputs(of_polars(result))
        else:
            output = of_scalar(self._only, result, self._declared.single)
        return _content_type(output), [output]


def tensor(
    name: str, datatype: str, shape: Sequence[int], data: TensorData, content_type: str | None
) -> ResponseOutput:
    """A response output, made without validating what this module knows to be right."""
    parameters = _parameters(content_type)
    values = {
        "name": name,
        "shape": list(shape),
        "datatype": datatype,
        "parameters": parameters,
        "data": data,
    }
    return ResponseOutput.build(values)


def _parameters(content_type: str | None) -> Parameters | None:
    return (
        Parameters.build({"content_type": content_type, "headers": None}) if content_type else None
    )


def of_array(name: str, array: NDArray[Any], kind: Kind = None) -> ResponseOutput:
    """An array of any dtype."""
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        return _of_masked(name, array, kind)
    shape = _shape_of(array)
    if kind is not None:
        array = cast(array, kind)
    datatype = TENSORS.get((array.dtype.kind, array.dtype.itemsize))
    if datatype is not None:
        return tensor(name, datatype, shape, TensorData.from_array(array), NP)
    flat = array.ravel()
    if array.dtype.kind == "f":
        return tensor(name, "FP64", shape, TensorData.from_array(_exact_doubles(array)), NP)
    if array.dtype.kind in "US":
        is_string = (
            isinstance(kind, DataType) and kind == DataType.string and array.dtype.kind == "U"
        )
        content_type = STR if is_string else NP
        return tensor(
            name, "BYTES", shape, TensorData([_bytes(item) for item in flat.tolist()]), content_type
        )
    if array.dtype.kind == "M":
        return tensor(name, "BYTES", shape, _texts(map(str, flat)), DATETIME)
    if array.dtype.kind == "m":
        return tensor(name, "BYTES", shape, _texts(pd.Series(flat).map(duration)), STR)
    if array.dtype.kind == "O":
        return _of_object_array(name, flat.tolist(), shape, kind)
    raise NotEncodableError(array[()] if array.ndim == 0 else flat[0] if flat.size else array)


def _shape_of(array: NDArray[Any]) -> list[int]:
    return [*array.shape, 1] if array.ndim == 1 else [*array.shape] or [1]


def _of_object_array(
    name: str, items: list[Any], shape: Sequence[int], kind: Kind
) -> ResponseOutput:
    is_tensor = isinstance(kind, np.dtype)
    is_text = all(isinstance(item, str) or (is_tensor and item is None) for item in items)
    if is_text and (kind is None or is_tensor):
        texts = [None if item is None else _bytes(item) for item in items]
        return tensor(name, "BYTES", shape, TensorData(texts), NP)
    return _of_objects(name, items, shape, kind)


def _of_masked(name: str, array: Any, kind: Kind) -> ResponseOutput:
    """A masked array: what is masked is null, which floats say as NaN and all else as JSON."""
    if not np.ma.is_masked(array):
        return of_array(name, array.data, kind)
    if array.dtype.kind == "f":
        return of_array(name, array.filled(np.nan), kind)
    return _of_objects(name, array.astype(object).ravel().tolist(), _shape_of(array), kind)


def _exact_doubles(array: NDArray[Any]) -> NDArray[Any]:
    """Wider floats as FP64. Raises `NotEncodableError` for values that FP64 does not hold."""
    doubles = array.astype("f8")
    if not np.array_equal(doubles.astype(array.dtype), array, equal_nan=True):
        raise NotEncodableError(array.ravel()[0])
    return doubles


def of_frame(frame: pd.DataFrame, declared: DeclaredOutputs | None = None) -> list[ResponseOutput]:
    """One output per column."""
    known = declared or DeclaredOutputs()
    names = column_names(frame)
    return [
        of_column(name, frame.iloc[:, at], known.kind_of(name)) for at, name in enumerate(names)
    ]


def column_names(frame: pd.DataFrame) -> list[str]:
    """The outputs' names, of which equal ones are numbered."""
    labels = [label(item) for item in frame.columns]
    return [text if labels.count(text) == 1 else f"{text}_{at}" for at, text in enumerate(labels)]


def of_column(name: str, column: pd.Series[Any], kind: Kind = None) -> ResponseOutput:
    """One column of a frame; numeric columns carry no content type, `pd` on the response reads them."""
    shape = [len(column), 1]
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column = (
            column.astype(dtype.categories.dtype) if not column.hasnans else column.astype(object)
        )
        dtype = column.dtype
    if isinstance(dtype, np.dtype) and (dtype.kind, dtype.itemsize) in TENSORS:
        return _of_number_column(name, column.to_numpy(), kind)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return tensor(name, "BYTES", shape, _texts(iso(item) for item in column), DATETIME)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return tensor(name, "BYTES", shape, _texts(duration(item) for item in column), STR)
    if not isinstance(dtype, np.dtype) and pd.api.types.is_numeric_dtype(dtype):
        found = _of_nullable(name, column, kind)
        if found is not None:
            return found
    return _of_objects(
        name, [None if is_missing(item) else item for item in column.tolist()], shape, kind, None
    )


def _of_number_column(name: str, array: NDArray[Any], kind: Kind) -> ResponseOutput:
    array = cast(array, kind) if kind is not None else array
    datatype = TENSORS[array.dtype.kind, array.dtype.itemsize]
    return tensor(name, datatype, [len(array), 1], TensorData.from_array(array), None)


def _of_nullable(name: str, column: pd.Series[Any], kind: Kind) -> ResponseOutput | None:
    """Numbers with pandas' missing values: NaN where a float can say it, else JSON text with null.

    Returns None for numbers that no dtype of NumPy holds, such as decimals.
    """
    plain_dtype = getattr(column.dtype, "numpy_dtype", None) or np.dtype(column.dtype.type)
    if (plain_dtype.kind, plain_dtype.itemsize) not in TENSORS:
        return None
    if not column.isna().any():
        return _of_number_column(name, column.to_numpy(dtype=plain_dtype), kind)
    if plain_dtype.kind == "f":
        return _of_number_column(name, column.to_numpy(dtype=plain_dtype, na_value=np.nan), kind)
    values = [None if is_missing(item) else plain(item) for item in column.tolist()]
    return _of_objects(name, values, [len(values), 1], kind, None)


def of_polars(result: Any) -> Any:
    """A polars frame or series as pandas', with the types that it has."""
    frame = result.to_frame() if hasattr(result, "to_frame") else result
    made = frame.collect() if hasattr(frame, "collect") else frame
    found = made.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
    return found.iloc[:, 0] if hasattr(result, "to_frame") else found


def of_list(name: str, items: list[Any], kind: Kind = None) -> ResponseOutput:
    """A list: text, numbers and equal arrays as tensors, everything else as one JSON value per element."""
    shape = [len(items), 1]
    arrays = items and all(type(item) is np.ndarray and item.dtype.kind in "biuf" for item in items)
    if arrays and len({(item.shape, item.dtype) for item in items}) == 1:
        return of_array(name, np.stack(items), kind)
    return _of_objects(name, items, shape, kind)


def of_scalar(name: str, value: Any, kind: Kind = None) -> ResponseOutput:
    """One value; None is JSON's null."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return of_array(name, np.array(value))
    if isinstance(
        value,
        bool
        | int
        | float
        | str
        | bytes
        | bytearray
        | np.generic
        | dt.date
        | dt.time
        | dt.timedelta,
    ):
        return _of_objects(name, [value], [1], kind)
    return _of_objects(name, [plain(value)], [1], kind)


def _of_dict(
    result: dict[Any, Any], declared: DeclaredOutputs
) -> tuple[str | None, list[ResponseOutput]]:
    outputs = [
        of_value(label(key), value, declared.kind_of(label(key))) for key, value in result.items()
    ]
    return "dict" if all(
        isinstance(value, np.ndarray) for value in result.values()
    ) else None, outputs


def of_value(name: str, value: Any, kind: Kind = None) -> ResponseOutput:
    """Any value that has a form in V2."""
    if isinstance(value, np.ndarray):
        return of_array(name, value, kind)
    if isinstance(value, list | tuple):
        return of_list(name, list(value), kind)
    if isinstance(value, pd.Series):
        return of_column(name, value, kind)
    if value is None or isinstance(value, dict | pydantic.BaseModel | pd.DataFrame):
        return tensor(name, "BYTES", [1], _texts([to_json(plain(value))]), PD_JSON)
    return of_scalar(name, value, kind)


def _of_objects(
    name: str, items: list[Any], shape: Sequence[int], kind: Kind = None, numbers: str | None = NP
) -> ResponseOutput:
    """Python objects: as declared where they are that, else by their common type, else as JSON.

    Args:
        numbers: The content type of numbers.
    """
    if isinstance(kind, str):  # JSON
        return tensor(name, "BYTES", shape, _texts(to_json(plain(item)) for item in items), PD_JSON)
    for kinds, content_type, write, data_type, missing in _WRITERS:
        is_declared = isinstance(kind, DataType) and kind == data_type
        known = [item for item in items if item is not None] if is_declared else items
        if all(isinstance(item, kinds) for item in known) and (known or is_declared or not items):
            texts = [missing if item is None else _bytes(write(item)) for item in items]
            return tensor(name, "BYTES", shape, TensorData(texts), content_type)
    array = _declared_floats(items, kind)
    if array is None:
        array = exact_array(items)
    if array is not None:
        array = cast(array, kind).reshape(shape)
        return tensor(
            name,
            TENSORS[array.dtype.kind, array.dtype.itemsize],
            shape,
            TensorData.from_array(array),
            numbers,
        )
    return tensor(name, "BYTES", shape, _texts(to_json(plain(item)) for item in items), PD_JSON)


def _declared_floats(items: list[Any], kind: Kind) -> NDArray[Any] | None:
    """Numbers of a declared float output with NaN for those that are missing; None if that is not what they are."""
    dtype = number_type(kind)
    known = [item for item in items if item is not None]
    if dtype is None or dtype.kind != "f" or len(known) == len(items):
        return None
    array = exact_array(known) if known else np.empty(0, dtype=dtype)
    if array is None or array.dtype.kind == "b":
        return None
    floats = cast(array, kind)
    if floats.dtype.kind != "f":
        return None
    filled = np.full(len(items), np.nan, dtype=floats.dtype)
    filled[[item is not None for item in items]] = floats
    return filled


def _array_of(items: list[Any]) -> NDArray[Any] | None:
    """NumPy's array of numbers, in which integers stay integers; None if no dtype holds them."""
    try:
        if all(type(item) is int for item in items):
            return np.array(items, dtype="u8" if max(items) >= 2**63 else "i8")
        return np.array(items)
    except OverflowError:
        return None


def exact_array(items: list[Any]) -> NDArray[Any] | None:
    """Numbers as an array that has the same values, and booleans only among booleans; None if there is none."""
    if not items or not all(
        isinstance(item, bool | int | float | np.number | np.bool_) for item in items
    ):
        return None
    booleans = sum(isinstance(item, bool | np.bool_) for item in items)
    if booleans not in (0, len(items)):
        return None
    array = _array_of(items)
    if array is None or array.ndim != 1 or (array.dtype.kind, array.dtype.itemsize) not in TENSORS:
        return None
    if array.dtype.kind == "f" and not any(isinstance(item, float | np.floating) for item in items):
        return None
    made = array.tolist()
    is_exact = all(
        one == other or (one != one and other != other)
        for one, other in zip(made, items, strict=True)
    )
    return array if is_exact else None


def _b64(item: bytes | bytearray) -> bytes:
    return base64.b64encode(item)


# Types of objects, the content type, how one is written, and the declared type of which a missing value is written so.
_WRITERS: tuple[
    tuple[Any, str, Callable[[Any], str | bytes], DataType | None, bytes | None], ...
] = (
    (str, STR, lambda item: item, DataType.string, None),
    ((bytes, bytearray), BASE64, _b64, DataType.binary, None),
    ((dt.date, pd.Timestamp), DATETIME, iso, DataType.datetime, b"NaT"),
    ((dt.timedelta, pd.Timedelta), STR, duration, None, None),
)


def _texts(items: Iterable[str]) -> TensorData:
    return TensorData([item.encode("utf-8") for item in items])


def _bytes(item: str | bytes) -> bytes:
    return item.encode("utf-8") if isinstance(item, str) else item


def _content_type(output: ResponseOutput) -> str | None:
    """The request-level content type that reads a response of this one output."""
    content_type = output.parameters.content_type if output.parameters is not None else None
    return content_type if content_type in (NP, STR) else None
