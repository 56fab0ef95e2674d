"""V2 requests for every signature: the data that the model receives, and errors for others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.mlflow.conftest import MLflowModels
from unit.mlflow.v2.requests import Tensor, ask, request_of, tensor, three

pytestmark = pytest.mark.filterwarnings("ignore")


# model, inputs, parameters -> what an echo model received
RECEIVED: list[tuple[str, list[Tensor], dict[str, Any] | None, Any]] = [
    ("boolean", [tensor("bo", "BOOL", [True, False])], None, ["bool", ["bool True", "bool False"]]),
    ("integer", [tensor("i", "INT32", [3])], None, ["int32", ["int 3"]]),
    ("integer", [tensor("i", "INT64", [3])], None, ["int32", ["int 3"]]),
    ("integer", [tensor("i", "UINT8", [3])], None, ["int32", ["int 3"]]),
    ("integer", [tensor("i", "FP64", [3.0])], None, ["int32", ["int 3"]]),
    ("long", [tensor("l", "INT64", [2**63 - 1])], None, ["int64", [f"int {2**63 - 1}"]]),
    ("long", [tensor("l", "UINT64", [7])], None, ["int64", ["int 7"]]),
    ("long", [tensor("l", "FP32", [2.0])], None, ["int64", ["int 2"]]),
    ("float", [tensor("f", "FP32", [0.5])], None, ["float32", ["float 0.5"]]),
    ("float", [tensor("f", "FP64", [0.1])], None, ["float32", ["float 0.10000000149011612"]]),
    ("float", [tensor("f", "INT8", [3])], None, ["float32", ["float 3.0"]]),
    ("double", [tensor("d", "FP64", [7.4])], None, ["float64", ["float 7.4"]]),
    ("double", [tensor("d", "FP32", [7.4])], None, ["float64", ["float 7.400000095367432"]]),
    ("double", [tensor("d", "INT64", [3, 7])], None, ["float64", ["float 3.0", "float 7.0"]]),
    ("double", [tensor("d", "FP64", [None])], None, ["float64", ["float nan"]]),
    (
        "double",
        [tensor("d", "FP64", [1, 2], [2, 1])],
        {"content_type": "pd"},
        ["float64", ["float 1.0", "float 2.0"]],
    ),
    ("string", [tensor("s", "BYTES", ["x", "ü"])], None, ["str", ["str 'x'", "str 'ü'"]]),
    ("string", [tensor("s", "BYTES", [None])], None, ["object", ["NoneType None"]]),
    ("binary", [tensor("bi", "BYTES", ["aGk="])], None, ["object", ["bytes b'hi'"]]),
    ("binary", [tensor("bi", "BYTES", ["!!"])], None, ["object", ["bytes b'!!'"]]),
    ("binary", [tensor("bi", "BYTES", ["aGk="], None, "str")], None, ["str", ["str 'aGk='"]]),
    (
        "datetime",
        [
            tensor(
                "dt",
                "BYTES",
                ["2020-01-02", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05.123456789+02:00"],
            )
        ],
        None,
        [
            "datetime64[ns]",
            [
                "Timestamp Timestamp('2020-01-02 00:00:00')",
                "Timestamp Timestamp('2020-01-02 03:04:05')",
                "Timestamp Timestamp('2020-01-02 01:04:05.123456789')",
            ],
        ],
    ),
    (
        "array",
        [tensor("arr", "BYTES", ["[1, 2]", "[]"])],
        None,
        ["object", [["float 1.0", "float 2.0"], []]],
    ),
    (
        "array",
        [tensor("arr", "FP64", [1, 2], [1, 2])],
        None,
        ["object", [["float 1.0", "float 2.0"]]],
    ),
    (
        "array",
        [tensor("arr", "INT64", [1, 2], [1, 2])],
        None,
        ["object", [["float 1.0", "float 2.0"]]],
    ),
    (
        "array",
        [tensor("arr", "BYTES", [[1.5, 2]], [1], "pd_json")],
        None,
        ["object", [["float 1.5", "float 2.0"]]],
    ),
    (
        "object",
        [tensor("obj", "BYTES", ['{"x":1}'])],
        None,
        ["object", [{"x": "int64 np.int64(1)"}]],
    ),
    (
        "object",
        [tensor("obj", "BYTES", [{"x": 1}], [1])],
        None,
        ["object", [{"x": "int64 np.int64(1)"}]],
    ),
    (
        "map",
        [tensor("mp", "BYTES", ['{"k":2}'])],
        None,
        ["object", [{"k": "float64 np.float64(2.0)"}]],
    ),
    (
        "any",
        [tensor("any", "BYTES", ['{"k":2}', '"t"'])],
        None,
        ["object", [{"k": "int 2"}, "str 't'"]],
    ),
]


@pytest.mark.parametrize(
    "model, inputs, parameters, expected", RECEIVED, ids=lambda value: str(value)[:60]
)
async def test_a_column_reaches_the_model_in_the_type_of_the_signature(
    mlflow_models: MLflowModels,
    model: str,
    inputs: list[Tensor],
    parameters: dict[str, Any] | None,
    expected: Any,
) -> None:
    (text,) = await ask(await mlflow_models(f"echo_{model}"), inputs, parameters)
    frame = json.loads(text)["data"]["frame"]
    assert frame == {inputs[0]["name"]: expected}


WHOLE: list[tuple[str, list[Tensor], dict[str, Any] | None, Any]] = [
    ("echo_tensor", [tensor("whatever", "FP32", [1, 2, 3], [1, 3])], None, "array float64 (1, 3)"),
    ("echo_tensor", [tensor("x", "INT64", [1, 2, 3], [1, 3])], None, "array float64 (1, 3)"),
    ("echo_tensor", three("FP64", [1.0, 2.0]), {"content_type": "pd"}, "array float64 (2, 3)"),
    ("echo_text_tensor", [tensor("x", "BYTES", ["x", "yy"])], None, "array <U2 (2,)"),
    (
        "echo_times",
        [tensor("x", "BYTES", ["2020-01-01", "2020-01-01T02:03"])],
        None,
        "array datetime64[s] (2,)",
    ),
    (
        "echo_times",
        [tensor("x", "BYTES", ["2020-01-01", "2021-02"], None, "str")],
        None,
        "array datetime64[s] (2,)",
    ),
    ("echo_none", [tensor("x", "FP32", [1, 2], [1, 2])], None, "array float32 (1, 2)"),
    ("echo_none", [tensor("x", "BYTES", ["a", "b"])], None, "array <U1 (2,)"),
]


@pytest.mark.parametrize(
    "model, inputs, parameters, expected", WHOLE, ids=lambda value: str(value)[:60]
)
async def test_a_tensor_reaches_the_model_in_the_dtype_of_the_signature(
    mlflow_models: MLflowModels,
    model: str,
    inputs: list[Tensor],
    parameters: dict[str, Any] | None,
    expected: str,
) -> None:
    (text,) = await ask(await mlflow_models(model), inputs, parameters)
    assert json.loads(text)["data"][0] == expected


async def test_without_a_signature_columns_of_equal_length_are_a_frame(
    mlflow_models: MLflowModels,
) -> None:
    inputs = [tensor("s", "BYTES", ["a", "b"]), tensor("n", "INT64", [1, 2], [2, 1])]
    (text,) = await ask(await mlflow_models("echo_none"), inputs)
    assert json.loads(text)["data"]["order"] == ["s", "n"]
    uneven = [tensor("x", "FP64", [1, 2, 3, 4], [2, 2]), tensor("y", "FP64", [1])]
    (text,) = await ask(await mlflow_models("echo_none"), uneven)
    assert json.loads(text)["data"].keys() == {"x", "y"}


async def test_content_type_str_on_the_request_gives_a_list(mlflow_models: MLflowModels) -> None:
    (text,) = await ask(
        await mlflow_models("echo_none"),
        [tensor("x", "BYTES", ["a", "b"])],
        {"content_type": "str"},
    )
    assert json.loads(text)["data"] == ["str 'a'", "str 'b'"]


async def test_named_tensors_in_and_out(mlflow_models: MLflowModels) -> None:
    served = await mlflow_models("tensors")
    inputs = [
        tensor("y", "INT32", [1, 2, 3], [1, 3]),
        tensor("x", "FP64", [1, 2], [1, 2]),
        tensor("z", "FP64", [1]),
    ]
    response = await served.runtime.predict(request_of(inputs))
    assert response.parameters is not None
    assert response.parameters.content_type == "dict"
    outputs = {
        output.name: (str(output.datatype), output.shape, output.data.root)
        for output in response.outputs
    }
    assert outputs == {"twice": ("FP32", [1, 2], [2.0, 4.0]), "sum": ("INT64", [1, 1], [6])}


@pytest.mark.parametrize("model", ["linear", "no_outputs", "no_signature"])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64", "INT32"])
async def test_a_frame_model_answers_whatever_the_number_type(
    mlflow_models: MLflowModels, model: str, datatype: str
) -> None:
    data = [1, 5]
    served = await mlflow_models(model)
    assert await ask(served, three(datatype, data)) == pytest.approx([2.5, 0.5])
    assert await ask(served, three(datatype, data, [2, 1])) == pytest.approx([2.5, 0.5])


async def test_params_come_from_the_requests_parameters(mlflow_models: MLflowModels) -> None:
    served, inputs = await mlflow_models("echo_params"), [tensor("d", "FP64", [1])]
    (text,) = await ask(
        served, inputs, {"temp": 0.9, "stop": ["a"], "unknown": 1, "content_type": "pd"}
    )
    expected = {"temp": "float 0.9", "stop": ["str 'a'"], "n": "int 1", "flag": "bool False"}
    assert json.loads(text)["params"] == expected
    (text,) = await ask(served, inputs)
    assert json.loads(text)["params"]["temp"] == "float 0.5"


TYPE_HINTS: list[tuple[str, list[Tensor], list[Any]]] = [
    ("shouts", [tensor("any", "BYTES", ["ab", "c"])], [b"AB", b"C"]),
    (
        "people",
        [tensor("input-0", "BYTES", ['{"name":"Ann"}', '{"name":"Bo","age":4}'])],
        [b"Ann 3", b"Bo 4"],
    ),
    ("people", [tensor("name", "BYTES", ["Ann"]), tensor("age", "INT64", [5])], [b"Ann 5"]),
    ("people", [tensor("name", "BYTES", ["Ann"])], [b"Ann 3"]),
    ("sums", [tensor("x", "BYTES", ['{"a":1}', '{"a":2,"b":5}'])], [1, 7]),
    ("blobs", [tensor("x", "BYTES", ["aGk=", ""])], [2, 0]),
    ("whens", [tensor("x", "BYTES", ["2020-01-02T03:04:05Z"])], [b"datetime 2020-01-02T03:04:05"]),
]


@pytest.mark.parametrize("model, inputs, expected", TYPE_HINTS, ids=lambda value: str(value)[:60])
async def test_type_hinted_models_get_their_rows(
    mlflow_models: MLflowModels, model: str, inputs: list[Tensor], expected: list[Any]
) -> None:
    assert await ask(await mlflow_models(model), inputs) == expected
