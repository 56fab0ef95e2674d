"""V2 requests -> what a pyfunc model's `predict` takes, led by the model's signature.

An input is read by its own content type, else by the signature's; the request by its own, else by the model's. For every
input is noted which content type was applied and who said so, because that is what explains most refusals.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types.schema import Array, ColSpec, Schema, TensorSpec
from numpy.typing import NDArray

from mlserver.codecs.base import InputCodecLike, find_input_codec
from mlserver.errors import InvalidInput, MLServerError
from mlserver.types import InferenceRequest, Parameters, RequestInput

from . import enforcement
from .enforcement import Applied
from .metadata import to_metadata_tensors, to_model_content_type

FROM_INPUT = "the input's parameters"
FROM_REQUEST = "the request's parameters"
FROM_SIGNATURE = "the model's signature"
FROM_SETTINGS = "the model's settings"
FORMS = ("pd", "np", "dict", "str")


@dataclass
class Decoded:
    """The data for `predict`, and how it came about."""

    data: Any
    request: Applied
    inputs: dict[str, Applied] = field(default_factory=dict)

    def explain(self) -> str:
        """One sentence on the content types that were applied."""
        said = {f"{applied}" for applied in self.inputs.values()}
        columns = "; ".join(sorted(said)[:3])
        return f"For the request, {self.request}" + (f"; for its inputs, {columns}." if columns else ".")


class Decoder:
    """Reads requests for one model.

    Args:
        schema: The signature's inputs, or None.
        content_type: The request content type of the model's settings, for models without a signature.
        from_type_hint: The signature came from a Python type hint, so the model checks its data itself.
    """

    def __init__(self, schema: Schema | None, content_type: str | None = None, from_type_hint: bool = False) -> None:
        self._schema = schema
        self._from_type_hint = from_type_hint
        self._default = Applied(content_type, FROM_SETTINGS)
        self._content_types: dict[str, str] = {}
        self._specs: dict[str, ColSpec | TensorSpec] = {}
        self._named = schema is not None and schema.has_input_names()
        if schema is not None:
            self._default = Applied(to_model_content_type(schema), FROM_SIGNATURE)
            for spec, tensor in zip(schema.inputs, to_metadata_tensors(schema), strict=True):
                self._specs[tensor.name] = spec
                self._content_types[tensor.name] = str(tensor.parameters and tensor.parameters.content_type)

    def knows(self, content_type: str | None) -> bool:
        """Whether requests of this content type are read here, rather than by a registered request codec."""
        return content_type is None or content_type in FORMS

    def decode(self, request: InferenceRequest) -> Decoded:
        """The data for `predict`.

        Raises:
            InvalidInput: an input is not what the signature needs; the text names it.
        """
        explicit = _content_type(request.parameters)
        form = Applied(explicit, FROM_REQUEST) if explicit else self._default
        inputs = self._unique(request.inputs)
        if self._schema is None and form.content_type is None:
            return self._guessed(inputs, form)
        if form.content_type == "pd":
            return self._frame(inputs, form)
        if form.content_type == "dict":
            return self._arrays(inputs, form)
        return self._single(inputs, form)

    def _unique(self, inputs: list[RequestInput]) -> list[RequestInput]:
        names = [tensor.name for tensor in inputs]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise InvalidInput("inputs", "one input per name", f"several named '{double}'")
        if not inputs:
            wanted = ", ".join(self._specs) or "at least one input"
            raise InvalidInput("inputs", wanted, "none")
        return inputs

    def _spec(self, name: str, position: int) -> ColSpec | TensorSpec | None:
        """The signature's entry for an input: by name, or by position where the signature has no names."""
        if self._schema is None:
            return None
        if self._named:
            return self._specs.get(name)
        return self._schema.inputs[position] if position < len(self._schema.inputs) else self._schema.inputs[-1]

    def _applied(self, tensor: RequestInput, position: int) -> Applied:
        explicit = _content_type(tensor.parameters)
        if explicit:
            return Applied(explicit, FROM_INPUT)
        if self._named:
            return Applied(self._content_types.get(tensor.name), FROM_SIGNATURE)
        types = list(self._content_types.values())
        return Applied(types[min(position, len(types) - 1)] if types else None, FROM_SIGNATURE)

    # -- the four forms --

    def _frame(self, inputs: list[RequestInput], form: Applied) -> Decoded:
        decoded = Decoded(None, form)
        columns: dict[str, Any] = {}
        if self._named:
            self._require(inputs)
            known = {tensor.name: tensor for tensor in inputs}
            inputs = [known[name] for name in self._specs if name in known]
        for position, tensor in enumerate(inputs):
            applied = decoded.inputs[tensor.name] = self._applied(tensor, position)
            spec = self._spec(tensor.name, position)
            columns[tensor.name] = _column(tensor, spec, applied)
        _same_rows(columns)
        if self._from_type_hint and len(columns) == 1 and len(self._specs) == 1:
            (values,) = columns.values()
            decoded.data = values.tolist() if isinstance(values, np.ndarray) else list(values)
        else:
            decoded.data = pd.DataFrame(columns)
        return decoded

    def _arrays(self, inputs: list[RequestInput], form: Applied) -> Decoded:
        decoded = Decoded({}, form)
        if self._named:
            self._require(inputs)
            inputs = [tensor for tensor in inputs if tensor.name in self._specs]
        for position, tensor in enumerate(inputs):
            applied = decoded.inputs[tensor.name] = self._applied(tensor, position)
            decoded.data[tensor.name] = _array(tensor, self._spec(tensor.name, position), applied)
        return decoded

    def _single(self, inputs: list[RequestInput], form: Applied) -> Decoded:
        if len(inputs) != 1:
            expected = f"one input ({form})"
            raise InvalidInput("inputs", expected, ", ".join(tensor.name for tensor in inputs))
        (tensor,) = inputs
        decoded = Decoded(None, form, {tensor.name: self._applied(tensor, 0)})
        applied = decoded.inputs[tensor.name]
        if form.content_type == "str":
            decoded.data = list(_elements(tensor, Applied("str", form.reason)))
        else:
            spec = self._spec(tensor.name, 0)
            decoded.data = _array(tensor, spec if isinstance(spec, TensorSpec) else None, applied)
        return decoded

    def _guessed(self, inputs: list[RequestInput], form: Applied) -> Decoded:
        """Nobody says what the model takes: one tensor is an array, several of equal length are a frame."""
        if len(inputs) == 1:
            return self._single(inputs, form)
        lengths = {tensor.shape[0] if tensor.shape else -1 for tensor in inputs}
        flat = all(len(tensor.shape) == 1 or tensor.shape[1:] == [1] for tensor in inputs)
        return self._frame(inputs, form) if flat and len(lengths) == 1 else self._arrays(inputs, form)

    def _require(self, inputs: list[RequestInput]) -> None:
        given = [tensor.name for tensor in inputs]
        missing = [name for name, spec in self._specs.items() if spec.required and name not in given]
        if missing:
            extra = [name for name in given if name not in self._specs]
            hint = f"; not in the signature: {extra}" if extra else ""
            raise InvalidInput("inputs", f"all of the signature's inputs, missing {missing}", f"{given}{hint}")


# -- one input --


def _content_type(parameters: Parameters | None) -> str | None:
    return parameters.content_type if parameters is not None else None


def _same_rows(columns: dict[str, Any]) -> None:
    rows = {name: len(values) for name, values in columns.items()}
    if len(set(rows.values())) > 1:
        name, count = next(iter(rows.items()))
        other = next(key for key, size in rows.items() if size != count)
        raise InvalidInput(f"input '{other}'", f"{count} rows as in input '{name}'", str(rows[other]))


def _column(tensor: RequestInput, spec: ColSpec | TensorSpec | None, applied: Applied) -> Any:
    """The values of one column, one per row."""
    shape = tensor.shape
    nested = isinstance(spec, ColSpec) and isinstance(spec.type, Array) and str(tensor.datatype) != "BYTES"
    if not nested and (len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1)):
        raise InvalidInput(f"input '{tensor.name}'", "shape [n] or [n, 1] for a column", f"{shape} ({applied})")
    if str(tensor.datatype) == "BYTES":
        values: Any = _elements(tensor, applied)
    else:
        array = _numbers(tensor, applied)
        values = array.tolist() if nested else array.reshape(-1)
    if isinstance(spec, ColSpec):
        return enforcement.column(tensor.name, values, spec, str(tensor.datatype), applied)
    return values


def _array(tensor: RequestInput, spec: ColSpec | TensorSpec | None, applied: Applied) -> NDArray[Any]:
    """The array of one tensor, in the signature's dtype if there is one."""
    dtype = spec.type if isinstance(spec, TensorSpec) else None
    if str(tensor.datatype) != "BYTES":
        array = _numbers(tensor, applied)
        if dtype is None or dtype.kind == "O":
            return array
        try:
            return enforcement.as_dtype(array, dtype)
        except enforcement.NotExactError:
            raise enforcement.refusal(tensor.name, f"a tensor of {dtype}", str(tensor.datatype), applied) from None
    values = _elements(tensor, applied)
    try:
        return _text_array(values, dtype).reshape(tensor.shape)
    except (ValueError, TypeError):
        raise enforcement.refusal(tensor.name, f"a tensor of {dtype}", "BYTES", applied) from None


def _text_array(values: Any, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values.astype(dtype) if dtype is not None else values
    if dtype is not None and dtype.kind in "biuf":
        raise ValueError
    if dtype is None:
        return np.array(values) if all(isinstance(value, str) for value in values) else _objects(values)
    return _objects(values) if dtype.kind == "O" else np.array(values, dtype=dtype)


def _objects(values: Any) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _numbers(tensor: RequestInput, applied: Applied) -> NDArray[Any]:
    codec = _custom_codec(applied)
    if codec is not None:
        return np.asarray(codec.decode_input(tensor))
    if applied.reason == FROM_INPUT and applied.content_type in READERS:
        expected = f"BYTES for content type '{applied.content_type}'"
        raise InvalidInput(f"input '{tensor.name}'", expected, f"{tensor.datatype} ({applied})")
    return tensor.data.to_array(str(tensor.datatype), tensor.shape)


def _elements(tensor: RequestInput, applied: Applied) -> Any:
    """The elements of a BYTES tensor as Python values, in one flat list."""
    codec = _custom_codec(applied)
    if codec is not None:
        return codec.decode_input(tensor)
    elements = tensor.data.to_array("BYTES", tensor.shape).ravel().tolist()
    read = READERS.get(applied.content_type or "", _text)
    try:
        return read(elements)
    except MLServerError:
        raise
    except (ValueError, TypeError) as problem:
        raise InvalidInput(
            f"input '{tensor.name}'", f"{EXPECTED[applied.content_type or '']}", f"{problem} ({applied})"
        ) from None


def _custom_codec(applied: Applied) -> InputCodecLike | None:
    """A codec that somebody registered beside the built-in ones."""
    if applied.content_type is None or applied.content_type in READERS or applied.content_type in ("np", "pd"):
        return None
    return find_input_codec(applied.content_type)


def _text(elements: list[Any]) -> list[Any]:
    """Text where the bytes are UTF-8, else the bytes; JSON values that are no text stay as they came."""
    return [
        _decoded(element) if isinstance(element, bytes | bytearray | memoryview) else element for element in elements
    ]


def _decoded(element: bytes | bytearray | memoryview) -> str | bytes:
    data = bytes(element)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _strings(elements: list[Any]) -> list[str | None]:
    texts = _text(elements)
    wrong = next((text for text in texts if text is not None and not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"{type(wrong).__name__} {str(wrong)[:40]!r}")
    return texts


def _binaries(elements: list[Any]) -> list[bytes | None]:
    return [None if element is None else _binary(element) for element in elements]


def _binary(element: Any) -> bytes:
    if not isinstance(element, str | bytes | bytearray | memoryview):
        raise TypeError(f"{type(element).__name__} {str(element)[:40]!r}")
    data = element.encode("utf-8") if isinstance(element, str) else bytes(element)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data  # sent as it is, without base64: over gRPC and in the binary encoding that is the natural way


def _datetimes(elements: list[Any]) -> Any:
    """Naive datetimes in UTC, as MLflow's own protocol makes them of offsets."""
    texts = [None if text == "NaT" else text for text in _strings(elements)]
    found = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True)
    return found.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()


def _json_values(elements: list[Any]) -> list[Any]:
    return [json.loads(element) if isinstance(element, str | bytes) else element for element in elements]


READERS: dict[str, Callable[[list[Any]], Any]] = {
    "str": _strings,
    "base64": _binaries,
    "datetime": _datetimes,
    "pd_json": _json_values,
}
EXPECTED = {
    "": "BYTES",
    "np": "BYTES",
    "str": "text",
    "base64": "base64 text or bytes",
    "datetime": "ISO 8601 text",
    "pd_json": "JSON text",
}
