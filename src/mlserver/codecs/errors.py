"""Errors of encoding and decoding; each names the value or tensor and its type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import MLServerError


class CodecError(MLServerError):
    """A payload could not be converted to or from tensors.

    Attributes:
        reason: The text without its fixed beginning.
    """

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
        if is_input:
            place = "input request" if is_request else "input field"
        else:
            place = "output response" if is_request else "output field"
        facts = [f"name '{name}'"] if name else []
        facts += [f"type {payload_type}"] if payload_type else []
        suffix = f" with {' and '.join(facts)}" if facts else ""
        # What the model returns is not the client's fault.
        super().__init__(f"Codec not found for {place}{suffix}", 400 if is_input else 500)


class InputsNotFound(MLServerError):
    """The inputs of a request and the arguments of `predict` do not agree.

    Args:
        unexpected: Names of inputs without an argument.
        missing: Names of arguments without an input.
        known: Argument names and their type hints.
    """

    def __init__(
        self, unexpected: Iterable[str], missing: Iterable[str], known: Mapping[str, Any]
    ) -> None:
        parts = [f"unexpected {_quoted(unexpected)}"] if unexpected else []
        parts += [f"missing {_quoted(missing)}"] if missing else []
        arguments = [f"'{name}' ({type_name(hint)})" for name, hint in known.items()]
        super().__init__(
            f"Inputs do not match the model's arguments: {'; '.join(parts)}. "
            f"Expected inputs: {', '.join(arguments) or 'none'}"
        )


class OutputNotFound(MLServerError):
    """A value returned by `predict` does not fit the return type hint.

    Args:
        index: Position of the value.
        output_type: Type of the value.
        hints: The hints of all positions.
    """

    def __init__(self, index: int, output_type: Any, hints: Iterable[Any]) -> None:
        hint_names = ", ".join(type_name(hint) for hint in hints) or "nothing"
        super().__init__(
            f"No codec fits output {index} of type {type_name(output_type)}; "
            f"the return type hint is: {hint_names}",
            500,
        )


def type_name(hint: Any) -> str:
    """Return a type or type hint as it is written in code: `numpy.ndarray`, `list[str]`."""
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        prefix = "" if hint.__module__ == "builtins" else f"{hint.__module__}."
        return f"{prefix}{hint.__name__}"
    return str(hint).replace("typing.", "")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
