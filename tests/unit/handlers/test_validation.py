"""Validation of requests, independent of the wire format."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.errors import MLServerError
from mlserver.handlers.validation import (
    MAX_DEPTH,
    MAX_INPUTS,
    MAX_NAME,
    check_id,
    check_request,
    parse_priority,
    parse_timeout,
)
from mlserver.settings import Settings
from mlserver.types import InferenceRequest, Parameters, RequestInput, RequestOutput, TensorData


def tensor(
    name: str = "x", datatype: Any = "FP32", shape: Any = (1,), data: Any = (1.0,), **more: Any
) -> RequestInput:
    values = {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        "data": TensorData(list(data)),
        **more,
    }
    return RequestInput.build({"parameters": None, **values})


def request(*inputs: RequestInput, **more: Any) -> InferenceRequest:
    return InferenceRequest.build(
        {"id": None, "parameters": None, "inputs": list(inputs), "outputs": None, **more}
    )


def refusal(payload: InferenceRequest) -> str:
    with pytest.raises(MLServerError) as error:
        check_request(payload)
    assert (error.value.status_code, error.value.code) == (400, "INVALID_ARGUMENT")
    assert len(error.value.message) < 1000
    return error.value.message


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


def test_numbers_become_bytes() -> None:
    payload = request(tensor(), tensor("y", "BYTES", [1], ["a"]))
    check_request(payload)

    assert [input_tensor.data.representations for input_tensor in payload.inputs] == [
        ("raw",),
        ("root",),
    ]


@pytest.mark.parametrize(
    "payload, words",
    [
        (request(tensor(), tensor()), "input 'x': expected each input name once"),
        (
            request(tensor("a\0b")),
            "name of an input: expected text without control characters, received 'a\\x00b'",
        ),
        (request(tensor("\x7f")), "without control characters"),
        (
            request(tensor("n" * (MAX_NAME + 1))),
            f"at most {MAX_NAME} characters, received {MAX_NAME + 1}",
        ),
        (request(tensor(datatype="FLOAT")), "datatype of input 'x': expected one of BOOL, "),
        (
            request(tensor("long" * 100, data=[1, 2])),
            "expected 1 elements for shape [1], received 2",
        ),
        (
            request(tensor(shape=[-1])),
            "data of input 'x': expected a shape of non-negative dimensions",
        ),
        (
            request(*[tensor(str(number)) for number in range(MAX_INPUTS + 1)]),
            f"at most {MAX_INPUTS} inputs",
        ),
        (
            request(parameters=Parameters(k=nested(MAX_DEPTH + 1))),
            "parameter 'k' of the request: expected at most 32",
        ),
        (request(parameters=Parameters(k=nested(900))), "at most 32 levels"),
        (
            request(tensor(datatype="BYTES", data=[nested(400)])),
            "data of input 'x': expected at most 32 levels of lists",
        ),
        (request(tensor(parameters=Parameters(k=nested(40)))), "parameter 'k' of input 'x'"),
        (
            request(outputs=[RequestOutput(name="y", parameters=Parameters(k=nested(40)))]),
            "of output 'y'",
        ),
        (
            request(outputs=[RequestOutput(name="y", parameters=Parameters(classification=2))]),
            "parameter 'classification' of output 'y': this server has no classification",
        ),
        (
            request(
                outputs=[RequestOutput(name="y", parameters=Parameters(shared_memory_region="r"))]
            ),
            "parameter 'shared_memory_region' of output 'y': this server has no shared memory",
        ),
        (
            request(tensor(data=[], parameters=Parameters(shared_memory_region="r"))),
            "parameter 'shared_memory_region' of input 'x'",
        ),
    ],
)
def test_rejected(payload: InferenceRequest, words: str) -> None:
    assert words in refusal(payload)


def test_accepted() -> None:
    check_request(request())
    check_request(request(tensor("é ☃"), tensor("\u2028"), tensor("")))
    check_request(request(tensor("n" * MAX_NAME)))
    check_request(request(tensor(datatype="BYTES", shape=[3], data=["a", None, [1, {"k": 2}]])))
    check_request(request(parameters=Parameters(k=nested(MAX_DEPTH), l=[], m={}, n=[1] * 1000)))


def test_requested_outputs_are_limited() -> None:
    """Else a response has an output as often as the request names it."""
    payload = request(tensor(), outputs=[RequestOutput(name=name) for name in "yzy"])
    words = "Invalid output 'y': expected each requested output once, received the name a second"
    assert words in refusal(payload)
    payload = request(tensor(), outputs=[RequestOutput(name=str(number)) for number in range(5)])
    check_request(payload, max_inputs=5)
    with pytest.raises(MLServerError, match="at most 4 outputs .setting 'max_inputs'., received 5"):
        check_request(payload, max_inputs=4)


def test_max_inputs() -> None:
    payload = request(*[tensor(str(number)) for number in range(5)])
    check_request(payload, max_inputs=5)
    with pytest.raises(MLServerError, match="at most 4 inputs .setting 'max_inputs'., received 5"):
        check_request(payload, max_inputs=4)
    assert Settings().max_inputs == MAX_INPUTS


def test_data_is_validated_in_every_request() -> None:
    """Valid names are cached, data is not."""
    check_request(request(tensor("again")))

    assert "'again'" in refusal(request(tensor("again", data=[1, 2])))
    assert "once" in refusal(request(tensor("again"), tensor("again")))


@pytest.mark.parametrize("request_id", ["a" * (MAX_NAME + 1), "a\nb", "\x1b[31m", "a\0"])
def test_ids_that_would_break_logs_and_headers(request_id: str) -> None:
    with pytest.raises(MLServerError, match="Invalid id") as error:
        check_id(request(id=request_id))
    assert len(error.value.message) < 500


@pytest.mark.parametrize("request_id", [None, "", "42", "é", "a" * MAX_NAME])
def test_valid_ids(request_id: str | None) -> None:
    check_id(request(id=request_id))


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        (0, None),
        ("0", None),
        (1_500_000, 1.5),
        ("250000", 0.25),
        (0.5, 5e-7),
        (1e300, 1e9),
        (10**400, 1e9),
    ],
)
def test_timeouts(value: Any, seconds: float | None) -> None:
    assert parse_timeout(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "value", [-1, True, "soon", "1.5", "²", "٣", "", "9" * 5000, math.nan, math.inf, [], {}]
)
def test_invalid_timeouts(value: Any) -> None:
    with pytest.raises(MLServerError, match="Invalid parameter 'timeout'") as error:
        parse_timeout(value)
    assert error.value.status_code == 400


@pytest.mark.parametrize(
    "value, priority", [(None, 0), (0, 0), (3, 3), ("7", 7), (2**31 - 1, 2**31 - 1)]
)
def test_priorities(value: Any, priority: int) -> None:
    assert parse_priority(value) == priority


@pytest.mark.parametrize("value", [-1, 2**31, 1.0, True, "high", "²", "9" * 5000, [], 10**400])
def test_invalid_priorities(value: Any) -> None:
    with pytest.raises(MLServerError, match="Invalid parameter 'priority'"):
        parse_priority(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_parsed_or_rejected(value: Any) -> None:
    for read in (parse_timeout, parse_priority):
        try:
            read(value)
        except MLServerError as error:
            assert error.status_code == 400  # noqa: PT017 - either end is right
