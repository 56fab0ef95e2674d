"""Validation of requests, independent of the wire format.

Numbers are converted to little-endian bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidInput, MLServerError
from ..tensor import DATATYPES, TensorError, brief
from ..types import InferenceRequest, Parameters, RequestInput, RequestOutput

MAX_INPUTS = 10_000  # the default of the setting `max_inputs`
MAX_NAME = 1024
MAX_DEPTH = 32  # nested lists and objects in a parameter
MAX_TIMEOUT = 1e15  # microseconds; larger values overflow timers
# Parameters of Triton extensions that are not implemented. Ignoring them would return a wrong
# response.
_UNSUPPORTED = {"shared_memory_region": "shared memory", "classification": "classification"}
_DATATYPES = frozenset(DATATYPES)
_TEXT_TYPES = frozenset((str, bytes))
# Names already checked: all requests of one model have the same.
_checked_names: set[tuple[str, ...]] = set()


def check_request(request: InferenceRequest, max_inputs: int = MAX_INPUTS) -> None:
    """Validate a request, and normalize its input tensors.

    Args:
        max_inputs: Inputs, and requested outputs, per request at most (setting `max_inputs`).

    Raises:
        InvalidInput: with the input's name, what was expected and what was received.
    """
    rows = request.rows
    names = tuple([tensor.name for tensor in request.inputs]) if rows is None else rows.names
    if len(names) > max_inputs:
        raise InvalidInput(
            "inputs", f"at most {max_inputs} inputs (setting 'max_inputs')", f"{len(names)}"
        )
    if names not in _checked_names:
        _check_names(names)
    if request.parameters is not None:
        _check_parameters(request.parameters, "the request")
    if request.outputs:
        _check_outputs(request.outputs, max_inputs)
    if rows is None:  # the numbers of a row block were checked when it was created
        _normalize(request.inputs)


def _check_outputs(outputs: Sequence[RequestOutput], limit: int) -> None:
    """Limit the requested outputs: the response has each of them."""
    if len(outputs) > limit:
        raise InvalidInput(
            "outputs", f"at most {limit} outputs (setting 'max_inputs')", f"{len(outputs)}"
        )
    seen = set()
    for output in outputs:
        if output.name in seen:
            raise InvalidInput(
                f"output '{_shorten(output.name)}'",
                "each requested output once",
                "the name a second time",
            )
        seen.add(output.name)
        if output.parameters is not None:
            _check_tensor_parameters(output.parameters, f"output '{_shorten(output.name)}'")


def _normalize(inputs: Sequence[RequestInput]) -> None:
    for tensor in inputs:
        if tensor.parameters is not None:
            _check_tensor_parameters(tensor.parameters, f"input '{_shorten(tensor.name)}'")
        datatype: Any = tensor.datatype
        if datatype not in _DATATYPES:
            expected = f"one of {', '.join(DATATYPES)}"
            raise InvalidInput(
                f"datatype of input '{_shorten(tensor.name)}'", expected, brief(datatype)
            )
        try:
            tensor.data.normalize(datatype, tensor.shape)
        except TensorError as error:
            raise InvalidInput(
                f"data of input '{_shorten(tensor.name)}'", error.expected, error.received
            ) from None
        if datatype == "BYTES" and tensor.data.raw is None:
            _check_elements(tensor)


def _check_elements(tensor: RequestInput) -> None:
    """Limit the nesting of BYTES elements, which may be any JSON value (null = missing)."""
    elements = tensor.data.root
    if (
        type(elements) is list
        and not _TEXT_TYPES.issuperset(map(type, elements))
        and _deeper_than(elements, MAX_DEPTH)
    ):
        raise InvalidInput(
            f"data of input '{_shorten(tensor.name)}'",
            f"at most {MAX_DEPTH} levels of lists",
            "more",
        )


def _check_parameters(parameters: Parameters | None, owner: str) -> None:
    """Limit the nesting of parameters.

    They are encoded again for the worker and in the response.
    """
    extra = parameters.__pydantic_extra__ if parameters is not None else None
    if not extra:
        return
    for name, value in extra.items():
        if isinstance(value, (dict, list)) and _deeper_than(value, MAX_DEPTH):
            raise InvalidInput(
                f"parameter '{_shorten(name)}' of {owner}", f"at most {MAX_DEPTH} levels", "more"
            )


def _check_tensor_parameters(parameters: Parameters | None, owner: str) -> None:
    _check_parameters(parameters, owner)
    for name in (parameters.__pydantic_extra__ if parameters is not None else None) or ():
        if name in _UNSUPPORTED:
            raise MLServerError(
                f"Invalid parameter '{name}' of {owner}: this server has no {_UNSUPPORTED[name]}"
            )


def _deeper_than(value: Any, levels: int) -> bool:
    items = [value]
    for _ in range(levels):
        children: list[Any] = []
        for item in items:
            if isinstance(item, dict):
                children.extend(item.values())
            elif isinstance(item, list):
                children.extend(item)
        if not children:
            return False
        items = children
    return any(isinstance(item, (dict, list)) for item in items)


def _check_names(names: tuple[str, ...]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise InvalidInput(
                f"input '{_shorten(name)}'", "each input name once", "the name a second time"
            )
        seen.add(name)
        if not name.isprintable() or len(name) > MAX_NAME:
            _check_name(name)
    if sum(map(len, names)) <= MAX_NAME:
        if len(_checked_names) >= 1024:
            _checked_names.clear()
        _checked_names.add(names)


def check_id(request: InferenceRequest) -> None:
    """Check that an id is short and printable: ids are written to headers and logs."""
    request_id = request.id
    if request_id and (len(request_id) > MAX_NAME or not request_id.isprintable()):
        raise InvalidInput(
            "id", f"printable text of at most {MAX_NAME} characters", brief(request_id)
        )


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise InvalidInput("name of an input", f"at most {MAX_NAME} characters", f"{len(name)}")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise InvalidInput("name of an input", "text without control characters", brief(name))


def _shorten(name: str) -> str:
    """Return a name for an error message, escaped and of limited length."""
    return brief(name)[1:-1]


def parse_timeout(value: object) -> float | None:
    """Return the parameter `timeout` (microseconds) in seconds; None = no timeout.

    Raises `InvalidInput`.
    """
    if value is None:
        return None
    value = _parse_digits(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInput(
            "parameter 'timeout'", "microseconds as a non-negative number", brief(value)
        )
    return float(min(value, MAX_TIMEOUT)) / 1e6 if value else None


def parse_priority(value: object) -> int:
    """Return the parameter `priority`: 1 is the highest, 0 the model's default.

    Raises `MLServerError`.
    """
    if value is None:
        return 0
    value = _parse_digits(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise MLServerError(
            "Invalid parameter 'priority': "
            f"expected a non-negative integer, received {brief(value)}"
        )
    return value


def _parse_digits(value: object) -> object:
    """Convert a string of digits to an integer (gRPC metadata and some clients send strings).

    Return others unchanged.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value
