"""What a request must satisfy whatever wire format it came by. Numbers leave here as checked bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidInput, MLServerError
from ..tensor import DATATYPES, TensorError, brief
from ..types import InferenceRequest, Parameters, RequestInput

MAX_INPUTS = 10_000  # the default of the setting `max_inputs`
MAX_NAME = 1024
MAX_DEPTH = 32  # levels of lists and objects in a parameter
MAX_TIMEOUT = 1e15  # microseconds; clocks and timers take no more than so many
# Parameters of Triton's extensions that this server does not have: to pass over them would be a wrong answer.
_NOT_OFFERED = {"shared_memory_region": "shared memory", "classification": "classification"}
_DATATYPES = frozenset(DATATYPES)
_TEXTS = frozenset((str, bytes))
# Name lists that were found good: the requests of one model all have the same.
_good_names: set[tuple[str, ...]] = set()


def check_request(request: InferenceRequest, max_inputs: int = MAX_INPUTS) -> None:
    """Settle every input tensor.

    Args:
        max_inputs: How many inputs a request may have (setting `max_inputs`).

    Raises:
        InvalidInput: names the input, what was expected and what came.
    """
    rows = request.rows
    names = tuple([tensor.name for tensor in request.inputs]) if rows is None else rows.names
    if len(names) > max_inputs:
        raise InvalidInput(
            "inputs", f"at most {max_inputs} inputs (setting 'max_inputs')", f"{len(names)}"
        )
    if names not in _good_names:
        _check_names(names)
    _check_parameters(request.parameters, "the request")
    for output in request.outputs or ():
        if output.parameters is not None:
            _check_tensors_parameters(output.parameters, f"output '{_shown(output.name)}'")
    if rows is None:  # the numbers of a row block were checked when the block was made
        _normalize(request.inputs)


def _normalize(inputs: Sequence[RequestInput]) -> None:
    for tensor in inputs:
        if tensor.parameters is not None:
            _check_tensors_parameters(tensor.parameters, f"input '{_shown(tensor.name)}'")
        datatype: Any = tensor.datatype
        if datatype not in _DATATYPES:
            expected = f"one of {', '.join(DATATYPES)}"
            raise InvalidInput(
                f"datatype of input '{_shown(tensor.name)}'", expected, brief(datatype)
            )
        try:
            tensor.data.normalize(datatype, tensor.shape)
        except TensorError as error:
            raise InvalidInput(
                f"data of input '{_shown(tensor.name)}'", error.expected, error.received
            ) from None
        if datatype == "BYTES" and tensor.data.raw is None:
            _check_elements(tensor)


def _check_elements(tensor: RequestInput) -> None:
    """Elements may be any JSON value (null is a missing text), but not without bounds."""
    elements = tensor.data.root
    if (
        type(elements) is list
        and not _TEXTS.issuperset(map(type, elements))
        and _deeper_than(elements, MAX_DEPTH)
    ):
        raise InvalidInput(
            f"data of input '{_shown(tensor.name)}'", f"at most {MAX_DEPTH} levels of lists", "more"
        )


def _check_parameters(parameters: Parameters | None, owner: str) -> None:
    """Parameters are written again (to a worker, into an answer) by code that has its limits: refuse what it cannot take."""
    extra = parameters.__pydantic_extra__ if parameters is not None else None
    if not extra:
        return
    for name, value in extra.items():
        if isinstance(value, (dict, list)) and _deeper_than(value, MAX_DEPTH):
            raise InvalidInput(
                f"parameter '{_shown(name)}' of {owner}", f"at most {MAX_DEPTH} levels", "more"
            )


def _check_tensors_parameters(parameters: Parameters | None, owner: str) -> None:
    _check_parameters(parameters, owner)
    for name in (parameters.__pydantic_extra__ if parameters is not None else None) or ():
        if name in _NOT_OFFERED:
            raise MLServerError(
                f"Invalid parameter '{name}' of {owner}: this server has no {_NOT_OFFERED[name]}"
            )


def _deeper_than(value: Any, levels: int) -> bool:
    inner = [value]
    for _ in range(levels):
        lists = [
            one.values() if isinstance(one, dict) else one
            for one in inner
            if isinstance(one, (dict, list))
        ]
        inner = [one for parts in lists for one in parts]
        if not inner:
            return False
    return any(isinstance(one, (dict, list)) for one in inner)


def _check_names(names: tuple[str, ...]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise InvalidInput(
                f"input '{_shown(name)}'", "each input name once", "the name a second time"
            )
        seen.add(name)
        if not name.isprintable() or len(name) > MAX_NAME:
            _check_name(name)
    if sum(map(len, names)) <= MAX_NAME:
        if len(_good_names) >= 1024:
            _good_names.clear()
        _good_names.add(names)


def check_id(request: InferenceRequest) -> None:
    """Ids are echoed into headers and logs: bounded, and without control characters."""
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


def _shown(name: str) -> str:
    return brief(name)[1:-1]


def seconds_of_timeout(value: object) -> float | None:
    """The protocol's `timeout` parameter, in microseconds, as seconds. Raises `MLServerError` for what is no such number."""
    if value is None:
        return None
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInput(
            "parameter 'timeout'", "microseconds as a non-negative number", brief(value)
        )
    return float(min(value, MAX_TIMEOUT)) / 1e6 if value else None


def priority_of(value: object) -> int:
    """The protocol's `priority` parameter: 1 is highest, 0 the model's default."""
    if value is None:
        return 0
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise MLServerError(
            f"Invalid parameter 'priority': expected a non-negative integer, received {brief(value)}"
        )
    return value


def _number(value: object) -> object:
    """Digits as the integer they mean: headers and some clients have text only."""
    return (
        int(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
        else value
    )
