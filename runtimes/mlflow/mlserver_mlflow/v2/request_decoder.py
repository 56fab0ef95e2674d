"""V2 requests -> what a pyfunc model's `predict` takes, led by the model's signature.

An input is read by its own content type, else by the signature's; the request by its own, else by the model's. For every
input is noted which content type was applied and who said so, because that is what explains most refusals.

Columns get the labels of the signature (`signature_inputs`). A signature without names takes its columns by position, as MLflow
does with a list: requests call them as they like, or by the names of the metadata, which then say the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types.schema import ColSpec, Map, Object, Schema, TensorSpec

from mlserver.context import joined_rows
from mlserver.errors import CannotBatch, InvalidInput, MLServerError
from mlserver.types import InferenceRequest, RequestInput, TensorData

from ..metadata import to_metadata_tensors, to_model_content_type
from . import input_values, type_enforcement
from .input_values import FROM_INPUT, content_type_of
from .signature_inputs import input_labels
from .type_enforcement import AppliedContentType

FROM_REQUEST = "the request's parameters"
FROM_SIGNATURE = "the model's signature"
FROM_SETTINGS = "the model's settings"
FORMS = ("pd", "np", "dict", "str")


@dataclass
class Decoded:
    """The data for `predict`, and how it came about."""

    data: Any
    request: AppliedContentType
    inputs: dict[str, AppliedContentType] = field(default_factory=dict)

    def explain(self) -> str:
        """One sentence on the content types that were applied."""
        groups: dict[AppliedContentType, list[str]] = {}
        for name, applied in self.inputs.items():
            groups.setdefault(applied, []).append(f"'{name}'")
        parts = [f"for the request, {self.request}"]
        for applied, names in groups.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"for input {', '.join(names[:3])}{more}, {applied}")
        return f"({'; '.join(parts)})"


class Decoder:
    """Reads requests for one model.

    Args:
        schema: The signature's inputs, or None.
        content_type: The request content type of the model's settings, for models without a signature.
        from_type_hint: The signature came from a Python type hint, so the model checks its data itself.
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
            labels = input_labels(schema)
            for spec, label, tensor in zip(
                schema.inputs, labels, to_metadata_tensors(schema), strict=True
            ):
                self._specs[tensor.name] = spec
                self._labels[tensor.name] = label
                self._content_types[tensor.name] = str(
                    tensor.parameters and tensor.parameters.content_type
                )
        self._has_other_labels = any(name != label for name, label in self._labels.items())

    def knows(self, content_type: str | None) -> bool:
        """Whether requests of this content type are read here, rather than by a registered request codec."""
        return content_type is None or content_type in FORMS

    def decode(self, request: InferenceRequest) -> Decoded:
        """The data for `predict`.

        Raises:
            InvalidInput: an input is not what the signature needs; the text names it.
        """
        explicit = content_type_of(request.parameters)
        form = AppliedContentType(explicit, FROM_REQUEST) if explicit else self._default
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
        return (
            self._schema.inputs[position]
            if position < len(self._schema.inputs)
            else self._schema.inputs[-1]
        )

    def _applied(self, tensor: RequestInput, position: int) -> AppliedContentType:
        explicit = content_type_of(tensor.parameters)
        if explicit:
            return AppliedContentType(explicit, FROM_INPUT)
        if self._named:
            return AppliedContentType(self._content_types.get(tensor.name), FROM_SIGNATURE)
        types = list(self._content_types.values())
        return AppliedContentType(
            types[min(position, len(types) - 1)] if types else None, FROM_SIGNATURE
        )

    # -- the four forms --

    def _frame(self, inputs: list[RequestInput], form: AppliedContentType) -> Decoded:
        decoded = Decoded(None, form)
        columns: dict[str, Any] = {}
        fields = self._are_fields(inputs)
        by_position = self._takes_positions and not fields
        if self._named:
            self._require(inputs)
            known = {tensor.name: tensor for tensor in inputs}
            inputs = [known[name] for name in self._specs if name in known]
        elif by_position:
            inputs = self._in_positions(inputs)
        for position, tensor in enumerate(inputs):
            if fields:
                spec, applied = (
                    None,
                    AppliedContentType(content_type_of(tensor.parameters), FROM_INPUT),
                )
            else:
                spec, applied = self._spec(tensor.name, position), self._applied(tensor, position)
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

    def _in_positions(self, inputs: list[RequestInput]) -> list[RequestInput]:
        """One input for each column of a signature without names, in its order.

        Inputs under the names of the metadata are put into their order; under other names they come in it. One input
        of rows and columns is all columns.

        Raises:
            InvalidInput: there are more inputs or fewer, or a name of the metadata is used for another position.
        """
        names = list(self._specs)
        (first, *more), width = inputs, len(names)
        if not more and width > 1 and len(first.shape) == 2 and first.shape[1] == width:
            return _split_columns(first, names)
        given = {tensor.name: tensor for tensor in inputs}
        if given.keys() == self._specs.keys():
            return [given[name] for name in names]
        misplaced = [
            name
            for name, place in zip(given, names, strict=False)
            if name in self._specs and name != place
        ]
        if len(inputs) != width or misplaced:
            expected = f"{width} inputs, by position or as {_shown(names)} (the model's signature has no names)"
            raise InvalidInput("inputs", expected, _shown(list(given)))
        return inputs

    def _are_fields(self, inputs: list[RequestInput]) -> bool:
        """Whether the inputs are the fields of a type hint's one object, rather than objects themselves."""
        if not self._from_type_hint or self._named or self._schema is None:
            return False
        kind = self._schema.inputs[0].type
        if not isinstance(kind, Object | Map):
            return False
        known = [part.name for part in kind.properties] if isinstance(kind, Object) else []
        return len(inputs) > 1 or inputs[0].name in known

    def _arrays(self, inputs: list[RequestInput], form: AppliedContentType) -> Decoded:
        decoded = Decoded({}, form)
        if self._named:
            self._require(inputs)
            inputs = [tensor for tensor in inputs if tensor.name in self._specs]
        for position, tensor in enumerate(inputs):
            applied = decoded.inputs[tensor.name] = self._applied(tensor, position)
            label = self._labels[tensor.name] if self._named else tensor.name
            decoded.data[label] = input_values.read_array(
                tensor, self._spec(tensor.name, position), applied
            )
        return decoded

    def _single(self, inputs: list[RequestInput], form: AppliedContentType) -> Decoded:
        if len(inputs) != 1:
            expected = f"one input ({form})"
            raise InvalidInput("inputs", expected, ", ".join(tensor.name for tensor in inputs))
        (tensor,) = inputs
        decoded = Decoded(None, form, {tensor.name: self._applied(tensor, 0)})
        applied = decoded.inputs[tensor.name]
        if form.content_type == "str":
            decoded.data = list(
                input_values.read_values(tensor, AppliedContentType("str", form.reason))
            )
        else:
            spec = self._spec(tensor.name, 0)
            decoded.data = input_values.read_array(
                tensor, spec if isinstance(spec, TensorSpec) else None, applied
            )
        return decoded

    def _guessed(self, inputs: list[RequestInput], form: AppliedContentType) -> Decoded:
        """Nobody says what the model takes: one tensor is an array, several of equal length are a frame."""
        if len(inputs) == 1:
            return self._single(inputs, form)
        lengths = {tensor.shape[0] if tensor.shape else -1 for tensor in inputs}
        flat = all(len(tensor.shape) == 1 or tensor.shape[1:] == [1] for tensor in inputs)
        return (
            self._frame(inputs, form) if flat and len(lengths) == 1 else self._arrays(inputs, form)
        )

    def _require(self, inputs: list[RequestInput]) -> None:
        given = [tensor.name for tensor in inputs]
        missing = [
            name for name, spec in self._specs.items() if spec.required and name not in given
        ]
        if missing:
            extra = [name for name in given if name not in self._specs]
            hint = f"; not in the signature: {extra}" if extra else ""
            raise InvalidInput(
                "inputs", f"all of the signature's inputs, missing {missing}", f"{given}{hint}"
            )


def _split_columns(tensor: RequestInput, names: list[str]) -> list[RequestInput]:
    """The columns of a tensor [n, k] as inputs of shape [n]."""
    array = tensor.data.to_array(str(tensor.datatype), tensor.shape)
    return [
        RequestInput.build(
            {
                "name": name,
                "shape": [len(array)],
                "datatype": tensor.datatype,
                "parameters": tensor.parameters,
                "data": TensorData.from_array(array[:, position]),
            }
        )
        for position, name in enumerate(names)
    ]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"'{name[:80]}'" for name in names[:8]) + more


def _check_joined(frame: pd.DataFrame, columns: dict[str, Any]) -> None:
    """Refuse a batch whose columns have other dtypes than those of each of its requests alone.

    Raises:
        NotTogether: pandas found another dtype for the values of one request.
    """
    members = joined_rows()
    if len(members) < 2:
        return
    for position, values in enumerate(columns.values()):
        if isinstance(values, np.ndarray) or all(type(value) is str for value in values):
            continue
        start = 0
        for rows in members:
            part = pd.DataFrame({"x": values[start : start + rows]})
            if part.dtypes.iloc[0] != frame.dtypes.iloc[position]:
                raise CannotBatch
            start += rows


def explained(error: MLServerError, decoded: Decoded, schema: Schema | None) -> MLServerError:
    """An enforcement error of MLflow, short, with the column and the content types that were applied."""
    details = getattr(error, "details", None) or {}
    if details.get("error_class") != "SCHEMA_ENFORCEMENT_FAILED":
        return error
    # MLflow repeats all data and the whole schema before it says what is wrong.
    _, _, short = error.message.rpartition("'. Error: ")
    name = (
        type_enforcement.first_invalid_column(decoded.data, schema) if schema is not None else None
    )
    text = f"Input '{name}': {short}" if name is not None else short
    return MLServerError(f"{text} {decoded.explain()}", error.status_code, details=details)
