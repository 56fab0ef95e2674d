"""The `pd` codec: DataFrames, one tensor per column (`columns` has the column types).

Imported when the codec is asked for; `mlserver.codecs` itself does not load pandas.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import numpy as np
    import pandas as pd
except ImportError as problem:
    raise ImportError(f"The 'pd' codec needs pandas: pip install pandas ({problem})") from problem

from ..context import joined_rows
from ..errors import CannotBatch
from ..types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from .base import RequestCodec
from .columns import Column, as_declared, hint_of, read_column, write_column
from .errors import CodecError
from .json import PandasJsonContentType, encode_to_json
from .numpy import to_datatype

LABEL = "pandas_label"
"""Parameter with a column's label as JSON, where the tensor's name could not be it (no text, or not unique)."""


class PandasCodec(RequestCodec):
    """A DataFrame <-> one tensor of shape [rows, 1] per column, named by the column's label.

    The row index does not travel. What a datatype cannot tell (a categorical, nullable integers, a label that is no
    text) is noted in the tensor's parameters `pandas_dtype`, `pandas_categories` and `pandas_label`, so that decoding
    an encoded frame gives an equal one.
    """

    ContentType = "pd"
    TypeHint = pd.DataFrame
    ReadsNumbers = True
    JsonContentType = PandasJsonContentType

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return isinstance(payload, pd.DataFrame)

    @classmethod
    def encode_response(
        cls,
        model_name: str,
        payload: Any,
        model_version: str | None = None,
        use_bytes: bool = True,
        **kwargs: Any,
    ) -> InferenceResponse:
        return InferenceResponse(
            model_name=model_name,
            model_version=model_version,
            parameters=Parameters(content_type=cls.ContentType),
            outputs=cls.encode_outputs(payload, use_bytes=use_bytes),
        )

    @classmethod
    def decode_response(cls, response: InferenceResponse) -> pd.DataFrame:
        return _frame([RequestInput.build(dict(output)) for output in response.outputs])

    @classmethod
    def encode_request(
        cls, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> InferenceRequest:
        return InferenceRequest(
            parameters=Parameters(content_type=cls.ContentType),
            inputs=[RequestInput(**tensor) for tensor in _tensors(payload, use_bytes)],
        )

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> pd.DataFrame:
        return _frame(request.inputs)

    @classmethod
    def encode_outputs(cls, payload: pd.DataFrame, use_bytes: bool = True) -> list[ResponseOutput]:
        """The columns as outputs.

        Raises:
            NotTogether: the rows of one of several joined requests would be encoded otherwise alone.
        """
        _check_joined(payload)
        return [ResponseOutput(**tensor) for tensor in _tensors(payload, use_bytes)]


# -- frame -> tensors --


def _tensors(frame: pd.DataFrame, use_bytes: bool) -> list[dict[str, Any]]:
    """The fields of one tensor per column."""
    tensors = []
    for name, label, column in zip(
        _names(frame.columns), frame.columns, _columns(frame, use_bytes), strict=True
    ):
        hints = (
            column.hints
            if name == label
            else {**column.hints, LABEL: str(encode_to_json(label, use_bytes=False))}
        )
        fields = {
            "name": name,
            "shape": [len(frame), 1],
            "datatype": column.datatype,
            "data": column.data,
        }
        tensors.append({**fields, **_parameters(column, hints)})
    return tensors


def _columns(frame: pd.DataFrame, use_bytes: bool) -> Iterator[Column]:
    dtypes = set(frame.dtypes)
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.isnative:
        datatype = to_datatype(dtype).value
        for values in frame.to_numpy().T:
            yield Column(datatype, TensorData.from_array(values))
        return
    for label, series in frame.items():
        try:
            yield write_column(series, use_bytes)
        except CodecError as error:
            raise CodecError(f"column '{label}': {error.reason}") from None


def _check_joined(frame: pd.DataFrame) -> None:
    """Which datatype and content type carry a column depends on its values: those of each request must agree."""
    members = joined_rows()
    if len(members) < 2 or sum(members) != len(frame):
        return
    for position in range(frame.shape[1]):
        series = frame.iloc[:, position]
        if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
            continue
        whole, start = write_column(series), 0
        for rows in members:
            part = series.iloc[start : start + rows]
            own = write_column(part)
            if (own.datatype, own.content_type, own.hints) != (
                whole.datatype,
                whole.content_type,
                whole.hints,
            ):
                raise CannotBatch
            if isinstance(series.dtype, pd.CategoricalDtype) and part.nunique() != len(
                series.dtype.categories
            ):
                raise CannotBatch  # alone, it may have the categories that it uses
            start += rows


def _parameters(column: Column, hints: dict[str, str]) -> dict[str, Parameters]:
    """The parameters field, if there is anything to say."""
    if column.content_type is not None:
        return {"parameters": Parameters(content_type=column.content_type, **hints)}
    return {"parameters": Parameters(**hints)} if hints else {}


def _names(labels: pd.Index) -> list[str]:
    """A name for each label: its text, made unique."""
    names: list[str] = []
    taken = {label for label in labels if isinstance(label, str)}
    seen: set[str] = set()
    for label in labels:
        name = (
            label
            if isinstance(label, str)
            else ".".join(map(str, label if isinstance(label, tuple) else (label,)))
        )
        stem, number = name, 0
        while (
            name in seen
            or (number and name in taken)
            or (not isinstance(label, str) and name in taken)
        ):
            number += 1
            name = f"{stem}.{number}"
        seen.add(name)
        names.append(name)
    return names


# -- tensors -> frame --


def _frame(tensors: Sequence[RequestInput]) -> pd.DataFrame:
    """One column per tensor.

    Raises:
        CodecError: a column does not have one value per row, or not as many rows as the others.
    """
    columns = [read_column(tensor) for tensor in tensors]
    for tensor, column in zip(tensors, columns, strict=True):
        if len(column) != len(columns[0]):
            raise CodecError(
                f"columns of a DataFrame need equally many rows: '{tensors[0].name}' has {len(columns[0])}, "
                f"'{tensor.name}' has {len(column)}"
            )
    index = _labels(tensors)
    block = _block(columns)
    if block is not None:
        return pd.DataFrame(block, columns=index, copy=False)
    frame = pd.DataFrame({position: as_declared(column) for position, column in enumerate(columns)})
    frame.columns = index
    return frame


def _block(columns: list[Any]) -> np.ndarray[Any, Any] | None:
    """All columns in one new array, if they are numbers of one dtype: much cheaper than a frame of single columns."""
    dtype = columns[0].dtype if columns else None
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not dtype.isnative:
        return None
    if any(column.dtype != dtype for column in columns):
        return None
    return np.concatenate(columns).reshape(len(columns), -1).T


def _labels(tensors: Sequence[RequestInput]) -> pd.Index:
    noted = [hint_of(tensor, LABEL) for tensor in tensors]
    if not any(noted):
        return _text_labels(tuple(tensor.name for tensor in tensors))
    labels = [
        tensor.name if note is None else _label(note, tensor.name)
        for tensor, note in zip(tensors, noted, strict=True)
    ]
    return pd.Index(labels)


@functools.lru_cache(maxsize=256)
def _text_labels(names: tuple[str, ...]) -> pd.Index:
    """The labels of frames that come again and again; an index is immutable, so frames may share it."""
    return pd.Index(list(names)) if names else pd.RangeIndex(0)


def _label(note: str, name: str) -> Any:
    try:
        label = json.loads(note)
    except ValueError:
        raise CodecError(f"column '{name}': parameter {LABEL} is not JSON") from None
    if isinstance(label, dict):
        raise CodecError(f"column '{name}': parameter {LABEL} is no label")
    return tuple(label) if isinstance(label, list) else label
