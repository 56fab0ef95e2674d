"""Errors of encoding and decoding. Each names what could not be converted, and which type it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import MLServerError


class CodecError(MLServerError):
    """A payload could not be converted to, or from, tensors; `reason` is the text without its standing first words."""

    def __init__(self, msg: str) -> None:
        self.reason = msg
        super().__init__(f"There was an error encoding / decoding the payload: {msg}")


class CodecNotFound(MLServerError):
    """No codec is registered for a type or payload."""

    def __init__(
        self,
        name: str | None = None,
        payload_type: str | None = None,
        is_input: bool = False,
        is_request: bool = False,
    ) -> None:
        place = ("input" if is_input else "output") + " "
        place += ("request" if is_input else "response") if is_request else "field"
        facts = [f"name '{name}'"] if name else []
        facts += [f"type {payload_type}"] if payload_type else []
        super().__init__(
            f"Codec not found for {place}" + (f" with {' and '.join(facts)}" if facts else "")
        )


class InputsNotFound(MLServerError):
    """The inputs of a request and the arguments of `predict` do not agree.

    Args:
        unexpected: Names of inputs that are no argument.
        missing: Names of arguments without an input.
        known: Argument names and their type hints.
    """

    def __init__(
        self, unexpected: Iterable[str], missing: Iterable[str], known: Mapping[str, Any]
    ) -> None:
        parts = [f"unexpected {_quoted(unexpected)}"] if unexpected else []
        parts += [f"missing {_quoted(missing)}"] if missing else []
        wanted = (
            ", ".join(f"'{name}' ({type_name(hint)})" for name, hint in known.items()) or "none"
        )
        super().__init__(
            f"Inputs do not match the model's arguments: {'; '.join(parts)}. Expected inputs: {wanted}"
        )


class OutputNotFound(MLServerError):
    """A value returned by `predict` does not fit the return type hint.

    Args:
        index: Position of the value.
        output_type: Type of the value.
        hints: The hints of all positions.
    """

    def __init__(self, index: int, output_type: Any, hints: Iterable[Any]) -> None:
        wanted = ", ".join(type_name(hint) for hint in hints) or "nothing"
        super().__init__(
            f"No codec fits output {index} of type {type_name(output_type)}; the return type hint is: {wanted}"
        )


def type_name(hint: Any) -> str:
    """A type or type hint as a user would write it: `numpy.ndarray`, `list[str]`."""
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return (
            hint.__name__ if hint.__module__ == "builtins" else f"{hint.__module__}.{hint.__name__}"
        )
    return str(hint).replace("typing.", "")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
