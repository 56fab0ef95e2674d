"""The inputs of a signature: what V2 calls each, and the label that it has in the model's data.

A label may be anything that a column of a pandas frame is called: text, a number, text with line breaks. The labels of a
signature without names are positions, as in the frame that MLflow makes of a list. V2 names are text that a request can carry,
each once: where a label's text is none, the input is called by its position, and the metadata has the label as `mlflow_name`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlflow.types.schema import Schema

MAX_NAME = 1024  # characters that the server takes in the name of an input


def input_labels(schema: Schema) -> list[Any]:
    """What the model's data call each input.

    Not `schema.input_names()`, which takes the position for every name that is false: the column 0 at position 1 would be 1.
    """
    return [
        position if spec.name is None else spec.name for position, spec in enumerate(schema.inputs)
    ]


def input_names(schema: Schema, prefix: str) -> list[str]:
    """What V2 calls each input; those without a usable name by `prefix` and their position."""
    texts = [None if spec.name is None else str(spec.name) for spec in schema.inputs]
    counts = Counter(texts)
    given = [
        text if text is not None and counts[text] == 1 and _is_usable(text) else None
        for text in texts
    ]
    taken = {text for text in given if text is not None}
    names = []
    for position, text in enumerate(given):
        name = text if text is not None else f"{prefix}{position}"
        while text is None and name in taken:
            name = f"_{name}"
        names.append(name)
    return names


def renamed_inputs(schema: Schema, names: Sequence[str]) -> dict[str, str]:
    """The V2 names that stand for a label whose text no request can carry -> that text."""
    labels = {
        name: str(spec.name)
        for name, spec in zip(names, schema.inputs, strict=True)
        if spec.name is not None
    }
    return {name: label for name, label in labels.items() if name != label}


def has_exact_names(schema: Schema) -> bool:
    """Whether MLflow's own checks look for the labels that the signature has (see `input_labels`)."""
    return list(schema.input_names()) == input_labels(schema)


def has_text_names(schema: Schema) -> bool:
    """Whether all inputs have names that V2 and the model's data share."""
    return all(type(spec.name) is str for spec in schema.inputs) and not renamed_inputs(
        schema, input_names(schema, "")
    )


class ExactSchema(Schema):  # type: ignore[misc]  # MLflow has no types
    """A schema whose names are the labels, those that are false included."""

    def input_names(self) -> list[Any]:
        return input_labels(self)

    def required_input_names(self) -> list[Any]:
        return [
            label
            for label, spec in zip(input_labels(self), self.inputs, strict=True)
            if spec.required
        ]

    def optional_input_names(self) -> list[Any]:
        return [
            label
            for label, spec in zip(input_labels(self), self.inputs, strict=True)
            if not spec.required
        ]


def _is_usable(name: str) -> bool:
    """Whether the server takes an input of this name."""
    has_control = any(ord(character) < 32 or ord(character) == 127 for character in name)
    is_text = name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)
    return is_text and not has_control and len(name) <= MAX_NAME
