"""V2 names and data labels of a signature's inputs.

A label may be any column label of a pandas frame: text, a number, text with line breaks. The labels
of a signature without names are positions, as in the frame that MLflow makes of a list. V2 names
are unique texts that a request may contain. An input whose label has no such text is named by its
position, and its metadata has the label as `mlflow_name`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlflow.types.schema import Schema

MAX_NAME_LENGTH = 1024  # characters; the server's limit for names of inputs


def input_labels(schema: Schema) -> list[Any]:
    """Return the label of each input in the model's data.

    `schema.input_names()` returns the position for every falsy name: the column 0 at position 1
    would be 1.
    """
    return [
        position if spec.name is None else spec.name for position, spec in enumerate(schema.inputs)
    ]


def input_names(schema: Schema, prefix: str) -> list[str]:
    """Return the V2 name of each input; `prefix` and the position if its label is unusable."""
    texts = [None if spec.name is None else str(spec.name) for spec in schema.inputs]
    counts = Counter(texts)
    usable = {text for text in texts if text is not None and counts[text] == 1 and _is_usable(text)}
    names = []
    for position, text in enumerate(texts):
        if text in usable:
            names.append(str(text))
            continue
        name = f"{prefix}{position}"
        while name in usable:
            name = f"_{name}"
        names.append(name)
    return names


def renamed_inputs(schema: Schema, names: Sequence[str]) -> dict[str, str]:
    """Return {V2 name: text of the label} of the inputs whose V2 name is not their label."""
    labels = {
        name: str(spec.name)
        for name, spec in zip(names, schema.inputs, strict=True)
        if spec.name is not None
    }
    return {name: label for name, label in labels.items() if name != label}


def has_exact_names(schema: Schema) -> bool:
    """Whether MLflow's own checks expect the signature's labels (see `input_labels`)."""
    return list(schema.input_names()) == input_labels(schema)


def has_text_names(schema: Schema) -> bool:
    """Whether every input's label is text and its V2 name."""
    if not all(type(spec.name) is str for spec in schema.inputs):
        return False
    return not renamed_inputs(schema, input_names(schema, ""))


class ExactSchema(Schema):  # type: ignore[misc]  # MLflow has no types
    """A schema whose names are the labels, falsy ones included."""

    def input_names(self) -> list[Any]:
        return input_labels(self)

    def required_input_names(self) -> list[Any]:
        return self._select_labels(required=True)

    def optional_input_names(self) -> list[Any]:
        return self._select_labels(required=False)

    def _select_labels(self, required: bool) -> list[Any]:
        specs = zip(input_labels(self), self.inputs, strict=True)
        return [label for label, spec in specs if spec.required is required]


def _is_usable(name: str) -> bool:
    """Whether the server accepts an input of this name."""
    has_control = any(ord(character) < 32 or ord(character) == 127 for character in name)
    is_text = name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)
    return is_text and not has_control and len(name) <= MAX_NAME_LENGTH
