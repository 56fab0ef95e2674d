"""Decoding of V2 requests to the data of a pyfunc model's `predict`, by the model's signature.

An input is decoded by its own content type, else by the signature's; the request by its own, else
by the model's. The content type of each input and its origin are recorded, because they explain
most errors.

Columns get the labels of the signature (`signature_inputs`). The columns of a signature without
names are taken by position, as MLflow does with a list; inputs may have any names, or those of the
metadata, which then decide the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types.schema import ColSpec, Map, Object, Schema, TensorSpec

from mlserver.codecs import decode_inference_request
from mlserver.context import joined_rows
from mlserver.errors import CannotBatch, InvalidInput, MLServerError
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, MetadataTensor, RequestInput, TensorData

from ..metadata import to_metadata_tensors, to_model_content_type
from . import input_values, type_enforcement
from .input_values import FROM_INPUT, get_content_type
from .signature_inputs import input_labels
from .type_enforcement import AppliedContentType

FROM_REQUEST = "the request's parameters"
FROM_SIGNATURE = "the model's signature"
FROM_SETTINGS = "the model's settings"
FORMS = ("pd", "np", "dict", "str")


@dataclass
class DecodedRequest:
    """The data for `predict`, with the content types that it was decoded by."""

    data: Any
    request: AppliedContentType
    inputs: dict[str, AppliedContentType] = field(default_factory=dict)

    def explain(self) -> str:
        """Return one sentence on the content types that were applied."""
        groups: dict[AppliedContentType, list[str]] = {}
        for name, applied in self.inputs.items():
            groups.setdefault(applied, []).append(f"'{name}'")
        parts = [f"for the request, {self.request}"]
        for applied, names in groups.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"for input {', '.join(names[:3])}{more}, {applied}")
        return f"({'; '.join(parts)})"


class RequestDecoder:
    """Decodes requests for one model.

    Args:
        schema: The signature's inputs, or None.
        content_type: The content type in the model's settings, for models without a signature.
        from_type_hint: The signature is from a Python type hint, so that the model validates its
            data.
    """

    def __init__(
        self, schema: Schema | None, content_type: str | None = None, from_type_hint: bool = False
    ) -> None:
        self._schema = schema
        self._from_type_hint = from_type_hint
        self._default = AppliedContentType(content_type, FROM_SETTINGS)
        self._content_types: dict[str, str] = {}
        self._specs: dict[str, ColSpec | TensorSpec] = {}
        self._labels: dict[str, Any] = {}
        self._named = schema is not None and schema.has_input_names()
        if schema is not None:
            self._default = AppliedContentType(to_model_content_type(schema), FROM_SIGNATURE)
            tensors = to_metadata_tensors(schema)
            entries = zip(schema.inputs, input_labels(schema), tensors, strict=True)
            for spec, label, tensor in entries:
                self._specs[tensor.name] = spec
                self._labels[tensor.name] = label
                self._content_types[tensor.name] = str(get_content_type(tensor.parameters))
        self._has_other_labels = any(name != label for name, label in self._labels.items())

    def can_decode(self, content_type: str | None) -> bool:
        """Whether a request's content type is built in; others need a registered codec."""
        return content_type is None or content_type in FORMS

    def decode(self, request: InferenceRequest) -> DecodedRequest:
        """Return the data for `predict`.

        Raises:
            InvalidInput: an input does not match the signature; the text names it.
        """
        explicit = get_content_type(request.parameters)
        form = AppliedContentType(explicit, FROM_REQUEST) if explicit else self._default
        inputs = request.inputs
        self._check_names(inputs)
        if self._schema is None and form.content_type is None:
            return self._decode_without_signature(inputs, form)
        if form.content_type == "pd":
            return self._decode_frame(inputs, form)
        if form.content_type == "dict":
            return self._decode_arrays(inputs, form)
        return self._decode_single(inputs, form)

    def _check_names(self, inputs: list[RequestInput]) -> None:
        names = [tensor.name for tensor in inputs]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise InvalidInput("inputs", "one input per name", f"several named '{duplicate}'")
        if not inputs:
            expected = ", ".join(self._specs) or "at least one input"
            raise InvalidInput("inputs", expected, "none")

    def _get_spec(self, name: str, position: int) -> ColSpec | TensorSpec | None:
        """Return the signature's entry for an input, by name or by position."""
        if self._schema is None:
            return None
        if self._named:
            return self._specs.get(name)
        specs = self._schema.inputs
        spec: ColSpec | TensorSpec = specs[min(position, len(specs) - 1)]
        return spec

    def _get_applied(self, tensor: RequestInput, position: int) -> AppliedContentType:
        """Return the content type that an input is decoded by."""
        explicit = get_content_type(tensor.parameters)
        if explicit:
            return AppliedContentType(explicit, FROM_INPUT)
        if self._named:
            return AppliedContentType(self._content_types.get(tensor.name), FROM_SIGNATURE)
        types = list(self._content_types.values())
        content_type = types[min(position, len(types) - 1)] if types else None
        return AppliedContentType(content_type, FROM_SIGNATURE)

    def _decode_frame(self, inputs: list[RequestInput], form: AppliedContentType) -> DecodedRequest:
        decoded = DecodedRequest(None, form)
        columns: dict[str, Any] = {}
        fields = self._are_fields(inputs)
        by_position = self._takes_positions and not fields
        if self._named:
            self._check_required(inputs)
            by_name = {tensor.name: tensor for tensor in inputs}
            inputs = [by_name[name] for name in self._specs if name in by_name]
        elif by_position:
            inputs = self._sort_by_position(inputs)
        for position, tensor in enumerate(inputs):
            if fields:
                spec = None
                applied = AppliedContentType(get_content_type(tensor.parameters), FROM_INPUT)
            else:
                spec = self._get_spec(tensor.name, position)
                applied = self._get_applied(tensor, position)
            decoded.inputs[tensor.name] = applied
            columns[tensor.name] = input_values.read_column(tensor, spec, applied)
        input_values.check_rows(columns)
        if self._from_type_hint and not fields and len(columns) == 1:
            (values,) = columns.values()
            decoded.data = input_values.as_list(values)
        else:
            decoded.data = pd.DataFrame(columns)
            _check_joined(decoded.data, columns)
            if by_position:
                decoded.data.columns = pd.RangeIndex(len(columns))
            elif self._named and self._has_other_labels:
                labels = [self._labels[name] for name in columns]
                decoded.data.columns = pd.Index(labels, tupleize_cols=False)
        return decoded

    @property
    def _takes_positions(self) -> bool:
        """Whether the signature has columns without names."""
        return self._schema is not None and not self._named and not self._schema.is_tensor_spec()

    def _sort_by_position(self, inputs: list[RequestInput]) -> list[RequestInput]:
        """Return one input per column of a signature without names, in its order.

        Inputs with the names of the metadata are sorted by them, others are in order already. One
        input [n, columns] is split into its columns.

        Raises:
            InvalidInput: the number of inputs differs, or a name of the metadata has another
                position.
        """
        names = list(self._specs)
        (first, *others), width = inputs, len(names)
        if not others and width > 1 and len(first.shape) == 2 and first.shape[1] == width:
            return _split_columns(first, names)
        by_name = {tensor.name: tensor for tensor in inputs}
        if by_name.keys() == self._specs.keys():
            return [by_name[name] for name in names]
        has_misplaced = any(
            name in self._specs and name != expected
            for name, expected in zip(by_name, names, strict=False)
        )
        if len(inputs) != width or has_misplaced:
            expected = f"{width} inputs, by position or as {_list_names(names)}"
            raise InvalidInput(
                "inputs",
                f"{expected} (the model's signature has no names)",
                _list_names(list(by_name)),
            )
        return inputs

    def _are_fields(self, inputs: list[RequestInput]) -> bool:
        """Whether the inputs are the fields of a type hint's object, not whole objects."""
        if not self._from_type_hint or self._named or self._schema is None:
            return False
        kind = self._schema.inputs[0].type
        if not isinstance(kind, Object | Map):
            return False
        fields = [part.name for part in kind.properties] if isinstance(kind, Object) else []
        return len(inputs) > 1 or inputs[0].name in fields

    def _decode_arrays(
        self, inputs: list[RequestInput], form: AppliedContentType
    ) -> DecodedRequest:
        decoded = DecodedRequest({}, form)
        if self._named:
            self._check_required(inputs)
            inputs = [tensor for tensor in inputs if tensor.name in self._specs]
        for position, tensor in enumerate(inputs):
            applied = decoded.inputs[tensor.name] = self._get_applied(tensor, position)
            label = self._labels[tensor.name] if self._named else tensor.name
            spec = self._get_spec(tensor.name, position)
            decoded.data[label] = input_values.read_array(tensor, spec, applied)
        return decoded

    def _decode_single(
        self, inputs: list[RequestInput], form: AppliedContentType
    ) -> DecodedRequest:
        if len(inputs) != 1:
            expected = f"one input ({form})"
            raise InvalidInput("inputs", expected, ", ".join(tensor.name for tensor in inputs))
        (tensor,) = inputs
        decoded = DecodedRequest(None, form, {tensor.name: self._get_applied(tensor, 0)})
        applied = decoded.inputs[tensor.name]
        if form.content_type == "str":
            as_text = AppliedContentType("str", form.reason)
            decoded.data = list(input_values.read_values(tensor, as_text))
        else:
            spec = self._get_spec(tensor.name, 0)
            tensor_spec = spec if isinstance(spec, TensorSpec) else None
            decoded.data = input_values.read_array(tensor, tensor_spec, applied)
        return decoded

    def _decode_without_signature(
        self, inputs: list[RequestInput], form: AppliedContentType
    ) -> DecodedRequest:
        """Decode one tensor as an array, several columns of equal length as a frame."""
        if len(inputs) == 1:
            return self._decode_single(inputs, form)
        lengths = {tensor.shape[0] if tensor.shape else -1 for tensor in inputs}
        are_columns = all(len(tensor.shape) == 1 or tensor.shape[1:] == [1] for tensor in inputs)
        if are_columns and len(lengths) == 1:
            return self._decode_frame(inputs, form)
        return self._decode_arrays(inputs, form)

    def _check_required(self, inputs: list[RequestInput]) -> None:
        names = [tensor.name for tensor in inputs]
        required = [name for name, spec in self._specs.items() if spec.required]
        missing = [name for name in required if name not in names]
        if missing:
            extra = [name for name in names if name not in self._specs]
            hint = f"; not in the signature: {extra}" if extra else ""
            raise InvalidInput(
                "inputs", f"all of the signature's inputs, missing {missing}", f"{names}{hint}"
            )


def _split_columns(tensor: RequestInput, names: list[str]) -> list[RequestInput]:
    """Return the columns of a tensor [n, k] as inputs of shape [n]."""
    array = tensor.data.to_array(str(tensor.datatype), tensor.shape)
    columns = []
    for position, name in enumerate(names):
        values = {
            "name": name,
            "shape": [len(array)],
            "datatype": tensor.datatype,
            "parameters": tensor.parameters,
            "data": TensorData.from_array(array[:, position]),
        }
        columns.append(RequestInput.build(values))
    return columns


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"'{name[:80]}'" for name in names[:8]) + more


def _check_joined(frame: pd.DataFrame, columns: dict[str, Any]) -> None:
    """Check that pandas infers the same dtypes for each joined request alone.

    Raises:
        CannotBatch: the values of a request alone have another dtype.
    """
    rows_per_request = joined_rows()
    if len(rows_per_request) < 2:
        return
    for position, values in enumerate(columns.values()):
        if isinstance(values, np.ndarray) or all(type(value) is str for value in values):
            continue
        start = 0
        for rows in rows_per_request:
            part = pd.DataFrame({"x": values[start : start + rows]})
            if part.dtypes.iloc[0] != frame.dtypes.iloc[position]:
                raise CannotBatch
            start += rows


def decode_by_codec(
    request: InferenceRequest, settings: ModelSettings, metadata_inputs: dict[str, MetadataTensor]
) -> DecodedRequest:
    """Decode a request by a registered request codec.

    Raises:
        MLServerError: no codec is registered for its content type.
    """
    content_type = get_content_type(request.parameters)
    data = decode_inference_request(request, settings, metadata_inputs)
    if data is None:
        expected = ", ".join(FORMS)
        raise MLServerError(
            f"Unknown content type '{content_type}' of the request: expected one of {expected}"
        )
    return DecodedRequest(data, AppliedContentType(content_type, FROM_REQUEST))


def explain_error(
    error: MLServerError, decoded: DecodedRequest, schema: Schema | None
) -> MLServerError:
    """Return an enforcement error of MLflow shortened, with the column and the content types.

    Other errors are returned unchanged.
    """
    details = getattr(error, "details", None) or {}
    if details.get("error_class") != "SCHEMA_ENFORCEMENT_FAILED":
        return error
    # MLflow's text repeats all data and the whole schema before the reason.
    _, _, reason = error.message.rpartition("'. Error: ")
    name = None
    if schema is not None:
        name = type_enforcement.first_invalid_column(decoded.data, schema)
    text = f"Input '{name}': {reason}" if name is not None else reason
    return MLServerError(f"{text} {decoded.explain()}", error.status_code, details=details)
