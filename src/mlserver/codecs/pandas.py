"""Codec `pd`: DataFrames, one tensor per column (column types: `columns`).

Imported on first use of the codec; `mlserver.codecs` itself does not import pandas.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import numpy as np
    import pandas as pd
except ImportError as error:
    raise ImportError(f"The 'pd' codec needs pandas: pip install pandas ({error})") from error

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
from .columns import Column, as_declared, get_hint, read_column, write_column
from .errors import CodecError
from .json import PandasJsonContentType, encode_to_json
from .numpy import to_datatype

LABEL = "pandas_label"
"""Parameter with a column's label as JSON, if the label is not text or not unique."""


class PandasCodec(RequestCodec):
    """A DataFrame <-> one tensor of shape [rows, 1] per column, named by the column's label.

    The row index is not encoded. What a datatype does not represent (categories, nullable integers,
    labels that are not text) is in the tensor's parameters `pandas_dtype`, `pandas_categories` and
    `pandas_label`, so that decoding an encoded frame returns an equal one.
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
        return _build_frame([RequestInput.build(dict(output)) for output in response.outputs])

    @classmethod
    def encode_request(
        cls, payload: Any, use_bytes: bool = True, **kwargs: Any
    ) -> InferenceRequest:
        return InferenceRequest(
            parameters=Parameters(content_type=cls.ContentType),
            inputs=[RequestInput(**tensor) for tensor in _build_tensors(payload, use_bytes)],
        )

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> pd.DataFrame:
        return _build_frame(request.inputs)

    @classmethod
    def encode_outputs(cls, payload: pd.DataFrame, use_bytes: bool = True) -> list[ResponseOutput]:
        """Return the columns as outputs.

        Raises:
            CannotBatch: the rows of one of the joined requests alone have another encoding.
        """
        _check_joined(payload)
        return [ResponseOutput(**tensor) for tensor in _build_tensors(payload, use_bytes)]


# -- frame -> tensors --


def _build_tensors(frame: pd.DataFrame, use_bytes: bool) -> list[dict[str, Any]]:
    """Return the fields of one tensor per column."""
    tensors = []
    columns = _write_columns(frame, use_bytes)
    for name, label, column in zip(_make_names(frame.columns), frame.columns, columns, strict=True):
        hints = column.hints
        if name != label:
            hints = {**hints, LABEL: str(encode_to_json(label, use_bytes=False))}
        fields = {
            "name": name,
            "shape": [len(frame), 1],
            "datatype": column.datatype,
            "data": column.data,
        }
        tensors.append({**fields, **_build_parameters(column, hints)})
    return tensors


def _write_columns(frame: pd.DataFrame, use_bytes: bool) -> Iterator[Column]:
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
    """Check that each of the joined requests alone has the encoding of the whole frame.

    Datatype and content type of a column depend on its values.

    Raises:
        CannotBatch: a request has another encoding.
    """
    rows_per_request = joined_rows()
    if len(rows_per_request) < 2 or sum(rows_per_request) != len(frame):
        return
    for position in range(frame.shape[1]):
        series = frame.iloc[:, position]
        if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
            continue
        encoding, start = write_column(series).encoding, 0
        for row_count in rows_per_request:
            part = series.iloc[start : start + row_count]
            if write_column(part).encoding != encoding:
                raise CannotBatch
            dtype = series.dtype
            if isinstance(dtype, pd.CategoricalDtype) and part.nunique() != len(dtype.categories):
                raise CannotBatch  # alone, it may have only the categories that it uses
            start += row_count


def _build_parameters(column: Column, hints: dict[str, str]) -> dict[str, Parameters]:
    """Return the field `parameters`; empty if there are none."""
    if column.content_type is not None:
        return {"parameters": Parameters(content_type=column.content_type, **hints)}
    return {"parameters": Parameters(**hints)} if hints else {}


def _make_names(labels: pd.Index) -> list[str]:
    """Return a unique name for each label: its text, with a number if needed."""
    names: list[str] = []
    text_labels = {label for label in labels if isinstance(label, str)}
    used: set[str] = set()
    for label in labels:
        is_text = isinstance(label, str)
        name = label if is_text else _label_to_text(label)
        stem, number = name, 0
        while name in used or (name in text_labels and (number or not is_text)):
            number += 1
            name = f"{stem}.{number}"
        used.add(name)
        names.append(name)
    return names


def _label_to_text(label: Any) -> str:
    return ".".join(map(str, label)) if isinstance(label, tuple) else str(label)


# -- tensors -> frame --


def _build_frame(tensors: Sequence[RequestInput]) -> pd.DataFrame:
    """Return a frame of one column per tensor.

    Raises:
        CodecError: a column does not have one value per row, or columns differ in rows.
    """
    columns = [read_column(tensor) for tensor in tensors]
    for tensor, column in zip(tensors, columns, strict=True):
        if len(column) != len(columns[0]):
            raise CodecError(
                f"columns of a DataFrame need equally many rows: "
                f"'{tensors[0].name}' has {len(columns[0])}, '{tensor.name}' has {len(column)}"
            )
    index = _read_labels(tensors)
    block = _join_columns(columns)
    if block is not None:
        return pd.DataFrame(block, columns=index, copy=False)
    frame = pd.DataFrame({position: as_declared(column) for position, column in enumerate(columns)})
    frame.columns = index
    return frame


def _join_columns(columns: list[Any]) -> np.ndarray[Any, Any] | None:
    """Return all columns as one new array if they are numbers of one dtype, else None.

    A frame of one array is much cheaper to build than one of single columns.
    """
    dtype = columns[0].dtype if columns else None
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or not dtype.isnative:
        return None
    if any(column.dtype != dtype for column in columns):
        return None
    return np.concatenate(columns).reshape(len(columns), -1).T


def _read_labels(tensors: Sequence[RequestInput]) -> pd.Index:
    notes = [get_hint(tensor, LABEL) for tensor in tensors]
    if not any(notes):
        return _text_labels(tuple(tensor.name for tensor in tensors))
    labels = [
        tensor.name if note is None else _parse_label(note, tensor.name)
        for tensor, note in zip(tensors, notes, strict=True)
    ]
    return pd.Index(labels)


@functools.lru_cache(maxsize=256)
def _text_labels(names: tuple[str, ...]) -> pd.Index:
    """Return an index of text labels, cached: an index is immutable and may be shared by frames."""
    return pd.Index(list(names)) if names else pd.RangeIndex(0)


def _parse_label(note: str, name: str) -> Any:
    try:
        label = json.loads(note)
    except ValueError:
        raise CodecError(f"column '{name}': parameter {LABEL} is not JSON") from None
    if isinstance(label, dict):
        raise CodecError(f"column '{name}': parameter {LABEL} is not a label")
    return tuple(label) if isinstance(label, list) else label
