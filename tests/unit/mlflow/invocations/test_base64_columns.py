"""Base64 in `inputs` and `instances` with the setting `base64_inputs`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow import MLflowRuntime, invocations
from support.python_models import describe
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")

BYTES = b"hi\x00\x00"  # NumPy's own arrays of bytes would lose the zeros
TEXT = base64.b64encode(BYTES).decode()


async def runtime(mlflow_models: MLflowModels, name: str, **extra: Any) -> MLflowRuntime:
    parameters = ModelParameters(uri=str(mlflow_models.path(name)), extra=extra)
    runtime = MLflowRuntime(
        ModelSettings(name=name, implementation=MLflowRuntime, parameters=parameters)
    )
    await runtime.load()
    return runtime


async def sent(model: MLflowRuntime, body: Any, content_type: str = invocations.JSON) -> Any:
    """Return the data that the echo model received."""
    request = invocations.read_request(json.dumps(body).encode(), content_type, {})
    _, text, _ = invocations.write_response(await model.predict(request), {})
    return json.loads(json.loads(text)["predictions"][0])["data"]


FORMS: list[Any] = [
    {"inputs": {"bi": [TEXT, TEXT]}},
    {"inputs": [TEXT, TEXT]},
    {"inputs": [{"bi": TEXT}, {"bi": TEXT}]},
    {"instances": [{"bi": TEXT}, {"bi": TEXT}]},
    {"instances": [TEXT, TEXT]},
    {"dataframe_split": {"columns": ["bi"], "data": [[TEXT], [TEXT]]}},
    {"dataframe_records": [{"bi": TEXT}, {"bi": TEXT}]},
]


@pytest.mark.parametrize("body", FORMS, ids=str)
async def test_every_form_gives_the_same_bytes(mlflow_models: MLflowModels, body: Any) -> None:
    got = await sent(await runtime(mlflow_models, "echo_binary", base64_inputs=True), body)
    assert got["frame"]["bi"] == ["object", [describe(BYTES)] * 2]


async def test_one_value_and_none_at_all(mlflow_models: MLflowModels) -> None:
    model = await runtime(mlflow_models, "echo_binary", base64_inputs=True)
    assert (await sent(model, {"inputs": {"bi": TEXT}}))["frame"]["bi"][1] == [describe(BYTES)]
    assert (await sent(model, {"inputs": {"bi": [""]}}))["frame"]["bi"][1] == [describe(b"")]


async def test_without_the_setting_text_is_taken_as_mlflow_takes_it(
    mlflow_models: MLflowModels,
) -> None:
    for extra in ({}, {"base64_inputs": False}):
        got = await sent(
            await runtime(mlflow_models, "echo_binary", **extra), {"inputs": {"bi": [TEXT]}}
        )
        assert got["frame"]["bi"][1] == [describe(TEXT.encode())]


@pytest.mark.parametrize("value", ["!!!", "aGk", "None ", "é", None, 1, {"k": 1}])
@pytest.mark.parametrize("form", ["inputs", "instances"])
async def test_text_that_is_not_base64_is_refused(
    mlflow_models: MLflowModels, form: str, value: Any
) -> None:
    model = await runtime(mlflow_models, "echo_binary", base64_inputs=True)
    for data in ({"bi": [TEXT, value]}, [{"bi": TEXT}, {"bi": value}], [TEXT, value]):
        with pytest.raises(MLServerError, match="Column 'bi' is binary: expected base64") as caught:
            await sent(model, {form: data})
        status, text, _ = invocations.write_error(caught.value, {})
        assert (status, json.loads(text)["error_code"]) == (400, "BAD_REQUEST")


async def test_other_columns_stay_as_they_are(mlflow_models: MLflowModels) -> None:
    model = await runtime(mlflow_models, "echo_all", base64_inputs=True)
    row = {"bo": True, "i": 1, "l": 2, "f": 1.5, "s": TEXT, "bi": TEXT, "dt": "2020-01-02"}
    got = await sent(model, {"inputs": {name: [value] for name, value in row.items()}})
    assert got["frame"]["s"][1] == [describe(TEXT)]
    assert got["frame"]["bi"][1] == [describe(BYTES)]


async def test_bodies_that_are_wrong_otherwise_are_left_to_mlflow(
    mlflow_models: MLflowModels,
) -> None:
    model = await runtime(mlflow_models, "echo_binary", base64_inputs=True)
    bodies: list[Any] = [
        [],
        {},
        {"inputs": 5},
        {"inputs": {"other": ["x"]}},
        {"inputs": [TEXT], "instances": [TEXT]},
    ]
    for body in bodies:
        with pytest.raises(MLServerError):
            await sent(model, body)


async def test_a_setting_that_is_neither_true_nor_false(mlflow_models: MLflowModels) -> None:
    with pytest.raises(MLServerError, match="'base64_inputs' must be true or false"):
        await runtime(mlflow_models, "echo_binary", base64_inputs="yes")
