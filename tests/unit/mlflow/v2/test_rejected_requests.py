"""V2 requests that do not fit the signature of a model: the error names what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from mlserver.errors import MLServerError
from unit.mlflow.conftest import MLflowModels
from unit.mlflow.v2.requests import Tensor, ask, tensor, three

pytestmark = pytest.mark.filterwarnings("ignore")
SIGNATURE = "because of the model's signature"


# model, inputs, parameters -> status, parts of the message
REFUSED: list[tuple[str, list[Tensor], dict[str, Any] | None, int, list[str]]] = [
    (
        "linear",
        three("INT64", [2**53 + 1]),
        None,
        400,
        ["input 'a'", "double (FP64)", "INT64", f"'np' applied {SIGNATURE}"],
    ),
    ("linear", three("BYTES", ["x"]), None, 400, ["input 'a'", "double (FP64)", "received BYTES"]),
    ("linear", three("BOOL", [True]), None, 400, ["input 'a'", "double (FP64)", "received BOOL"]),
    ("linear", three("FP64", [1, 2], [1, 2]), None, 400, ["input 'a'", "[n] or [n, 1]", "[1, 2]"]),
    ("linear", three("FP64", [1], []), None, 400, ["input 'a'", "[n] or [n, 1]"]),
    ("linear", three("FP64", [None]), None, 400, ["NaN"]),
    (
        "linear",
        [tensor("a", "FP64", [1]), tensor("q", "FP64", [1])],
        None,
        400,
        ["missing ['b', 'c']", "['q']"],
    ),
    ("linear", [tensor("a", "FP64", [1]), *three("FP64", [1])], None, 400, ["several named 'a'"]),
    (
        "linear",
        [tensor("a", "FP64", [1]), tensor("b", "FP64", [1, 2]), tensor("c", "FP64", [1])],
        None,
        400,
        ["input 'b'", "1 rows", "received 2"],
    ),
    (
        "linear",
        three("FP64", [1]),
        {"content_type": "bogus"},
        400,
        ["'bogus'", "pd, np, dict, str"],
    ),
    (
        "linear",
        [tensor("x", "FP64", [1, 2, 3], [1, 3])],
        {"content_type": "np"},
        400,
        ["missing inputs ['a', 'b', 'c']", "'np' applied because of the request's parameters"],
    ),
    ("echo_boolean", [tensor("bo", "UINT8", [1])], None, 400, ["boolean (BOOL)", "received UINT8"]),
    (
        "echo_integer",
        [tensor("i", "INT64", [2**40])],
        None,
        400,
        ["integer (INT32)", "cannot hold exactly"],
    ),
    ("echo_integer", [tensor("i", "FP64", [3.5])], None, 400, ["integer (INT32)", "fractions"]),
    (
        "echo_integer",
        [tensor("i", "FP64", [None])],
        None,
        400,
        ["integer (INT32)", "missing values"],
    ),
    ("echo_long", [tensor("l", "UINT64", [2**63])], None, 400, ["long (INT64)", "UINT64"]),
    ("echo_float", [tensor("f", "INT64", [2**24 + 1])], None, 400, ["float (FP32)", "INT64"]),
    ("echo_string", [tensor("s", "BYTES", [1])], None, 400, ["input 's'", "text", "int"]),
    (
        "echo_string",
        [tensor("s", "INT64", [1])],
        None,
        400,
        ["input 's'", "string (BYTES)", "INT64"],
    ),
    ("echo_datetime", [tensor("dt", "BYTES", ["x"])], None, 400, ["input 'dt'", "ISO 8601", "'x'"]),
    (
        "echo_datetime",
        [tensor("dt", "INT64", [5])],
        None,
        400,
        ["input 'dt'", "datetime (BYTES)", "INT64"],
    ),
    (
        "echo_datetime",
        [tensor("dt", "BYTES", ["2020-01-02"], None, "str")],
        None,
        400,
        ["column dt", "'str' applied because of the input's parameters"],
    ),
    (
        "echo_array",
        [tensor("arr", "BYTES", ['["x"]'])],
        None,
        400,
        ["Input 'arr'", "float64", "'pd_json' applied"],
    ),
    (
        "echo_array",
        [tensor("arr", "BYTES", ["nope"])],
        None,
        400,
        ["input 'arr'", "JSON text", "'pd_json' applied"],
    ),
    (
        "echo_object",
        [tensor("obj", "BYTES", ['{"y":"t"}'])],
        None,
        400,
        ["Input 'obj'", "Missing required properties"],
    ),
    ("tensors", [tensor("x", "FP64", [1, 2], [1, 2])], None, 400, ["missing ['y']"]),
    (
        "tensors",
        [tensor("x", "FP32", [1, 2]), tensor("y", "INT64", [1, 2, 3], [1, 3])],
        None,
        400,
        ["(2,) does not match expected shape (-1, 2)", "'dict' applied"],
    ),
    (
        "tensors",
        [tensor("x", "BYTES", ["1", "2"], [1, 2]), tensor("y", "INT64", [1, 2, 3], [1, 3])],
        None,
        400,
        ["input 'x'", "a tensor of float32", "BYTES"],
    ),
    ("echo_tensor", three("FP64", [1]), None, 400, ["one input", "'np' applied", "a, b, c"]),
    ("echo_params", [tensor("d", "FP64", [1])], {"temp": "x"}, 400, ["Invalid parameters", "temp"]),
    (
        "echo_double",
        [tensor("d", "FP64", [1], None, "str")],
        None,
        400,
        ["input 'd'", "BYTES for content type 'str'"],
    ),
    ("fails", [tensor("x", "FP64", [1])], None, 500, ["ValueError: one"]),
    ("fails", [tensor("x", "FP64", [2])], None, 429, ["two"]),
    ("fails", [tensor("x", "FP64", [3])], None, 404, ["three"]),
    ("fails", [tensor("x", "FP64", [5])], None, 500, ["a value of type set"]),
]


@pytest.mark.parametrize(
    "model, inputs, parameters, status, parts", REFUSED, ids=lambda value: str(value)[:60]
)
async def test_what_does_not_fit_is_refused_by_name(
    mlflow_models: MLflowModels,
    model: str,
    inputs: list[Tensor],
    parameters: dict[str, Any] | None,
    status: int,
    parts: list[str],
) -> None:
    with pytest.raises(MLServerError) as caught:
        await ask(await mlflow_models(model), inputs, parameters)
    assert caught.value.status_code == status
    assert [part for part in parts if part not in caught.value.message] == [], caught.value.message
    assert "Traceback" not in caught.value.message
