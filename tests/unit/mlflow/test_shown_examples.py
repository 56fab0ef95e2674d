"""The input example of a model, as what its OpenAPI document shows: bodies that can be sent, and mean the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types import DataType, ParamSchema, ParamSpec

from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest
from mlserver_mlflow import MLflowRuntime, invocations
from mlserver_mlflow.shown_examples import FILE, MOST, of
from support.mlflow_zoo import Echo, python_model
from unit.mlflow.conftest import Zoo

pytestmark = pytest.mark.filterwarnings("ignore")

FRAME = pd.DataFrame(
    {
        "d": [0.5, None],
        "l": [1, 2],
        "s": ["x", "é"],
        "bi": [b"hi\x00", b"\xff" * 80],
        "dt": pd.to_datetime(["2020-01-02 03:04:05.25", "2021-01-02 00:00:00.5"]).as_unit("ns"),
        "o": [{"k": 1}, {"k": 2}],
        "a": [[1.0, 2.0], [3.0]],
    }
)
PARAMS = ParamSchema([ParamSpec("temp", DataType.double, 0.1)])


async def loaded(folder: Path, example: Any, params: ParamSchema | None = None) -> MLflowRuntime:
    signature = infer_signature(example[0] if isinstance(example, tuple) else example)
    signature.params = params
    python_model(Echo(), signature, input_example=example)(folder / "m")
    parameters = ModelParameters(uri=str(folder / "m"))
    runtime = MLflowRuntime(ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters))
    await runtime.load()
    return runtime


def shown(runtime: MLflowRuntime) -> dict[str, Any]:
    (route,) = (route for route in runtime.routes() if route.path == "/invocations")
    return route.config


async def told(runtime: MLflowRuntime, request: InferenceRequest) -> Any:
    """What the model says it was given; the texts of elements, whichever way they came."""
    response = await runtime.predict(request)
    if invocations.is_carried(request):
        _, body, _ = invocations.write_response(response, {})
        return json.loads(json.loads(body)["predictions"][0])
    return json.loads(response.outputs[0].data.root[0])


@pytest.mark.parametrize(
    "example, params",
    [
        (FRAME, None),
        ((FRAME, {"temp": 0.5}), PARAMS),
        (np.array([[1.0, 2.0]]), None),
        ({"x": np.array([[1, 2]], dtype="float32"), "y": np.array([[1], [2]])}, None),
    ],
    ids=["frame", "params", "array", "arrays"],
)
async def test_both_forms_mean_the_same(tmp_path: Path, example: Any, params: ParamSchema | None) -> None:
    runtime = await loaded(tmp_path, example, params)
    config = shown(runtime)
    body = json.dumps(config["example"], allow_nan=False).encode()
    by_body = await told(runtime, invocations.read_request(body, invocations.JSON, {}))
    assert await told(runtime, InferenceRequest.model_validate(config["v2_example"])) == by_body


async def test_metadata_does_not_carry_it(tmp_path: Path) -> None:
    runtime = await loaded(tmp_path, FRAME)
    assert "aGkA" in json.dumps(shown(runtime))
    assert "aGkA" not in (await runtime.metadata()).model_dump_json()


async def test_what_v2_has_no_plain_form_for(tmp_path: Path) -> None:
    runtime = await loaded(tmp_path, ["a", "b"])
    config = shown(runtime)
    assert config["example"] == {"inputs": ["a", "b"]}
    assert "v2_example" not in config


@pytest.mark.parametrize(
    "name",
    ["chats", "deep_anything", "deep_blobs", "deep_maps", "echo_any", "echo_object", "people", "repeats", "sums"],
)
async def test_columns_of_lists_and_objects_can_be_sent(zoo: Zoo, name: str) -> None:
    runtime = await zoo.runtime(name)
    (config,) = (route.config for route in runtime.routes() if "v2_example" in route.config)
    response = await runtime.predict(InferenceRequest.model_validate(config["v2_example"]))
    assert response.outputs


async def test_no_example(tmp_path: Path) -> None:
    signature = infer_signature(FRAME[["d"]])
    python_model(Echo(), signature)(tmp_path / "m")
    assert of(str(tmp_path / "m")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"inputs": "' + "x" * MOST + '"}', "[" * 100_000])
def test_files_that_are_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert of(str(tmp_path)) is None


def test_the_first_row_of_a_large_frame(tmp_path: Path) -> None:
    body = {"dataframe_split": {"columns": ["x"], "data": [["x" * 100]] * 1000}}
    (tmp_path / FILE).write_text(json.dumps(body))
    assert of(str(tmp_path)) == {"dataframe_split": {"columns": ["x"], "data": [["x" * 100]]}}
