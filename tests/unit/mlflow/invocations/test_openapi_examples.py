"""Examples in the OpenAPI document: they can be sent, and both formats are equivalent."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import DataType, ParamSchema, ParamSpec

from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest
from mlserver_mlflow import MLflowRuntime, invocations
from mlserver_mlflow.invocations import openapi_trials
from mlserver_mlflow.invocations.openapi_examples import EXAMPLE_FILE, MAX_SHOWN_BYTES, read_example
from support.flavor_models import python_model
from support.python_models import Echo
from unit.mlflow.conftest import MLflowModels

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


async def loaded(
    folder: Path, example: Any, params: ParamSchema | None = None, model: Any = None
) -> MLflowRuntime:
    signature = infer_signature(example[0] if isinstance(example, tuple) else example)
    signature.params = params
    python_model(model or Echo(), signature, input_example=example)(folder / "m")
    parameters = ModelParameters(uri=str(folder / "m"))
    runtime = MLflowRuntime(
        ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters)
    )
    await runtime.load()
    return runtime


def get_examples(runtime: MLflowRuntime) -> dict[str, Any]:
    (route,) = (route for route in runtime.routes() if route.path == "/invocations")
    return route.config


async def receive(runtime: MLflowRuntime, request: InferenceRequest) -> Any:
    """Return the data that the echo model received, as texts of elements."""
    response = await runtime.predict(request)
    if invocations.is_passthrough(request):
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
        (["a", "b"], None),
        (pd.DataFrame([[1.5, 2.5]], columns=[2, 1]), None),
    ],
    ids=["frame", "params", "array", "arrays", "list", "integers"],
)
async def test_both_forms_mean_the_same(
    tmp_path: Path, example: Any, params: ParamSchema | None
) -> None:
    runtime = await loaded(tmp_path, example, params)
    config = get_examples(runtime)
    body = json.dumps(config["example"], allow_nan=False).encode()
    by_body = await receive(runtime, invocations.read_request(body, invocations.JSON, {}))
    assert await receive(runtime, InferenceRequest.model_validate(config["v2_example"])) == by_body


async def test_metadata_does_not_carry_it(tmp_path: Path) -> None:
    runtime = await loaded(tmp_path, FRAME)
    assert "aGkA" in json.dumps(get_examples(runtime))
    assert "aGkA" not in (await runtime.metadata()).model_dump_json()


async def test_a_list_of_texts_is_the_one_column(tmp_path: Path) -> None:
    config = get_examples(await loaded(tmp_path, ["a", "b"]))
    assert config["example"] == {"inputs": ["a", "b"]}
    assert config["v2_example"]["inputs"] == [
        {"name": "input-0", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}
    ]


@pytest.mark.parametrize(
    "name",
    [
        "chats",
        "deep_anything",
        "deep_blobs",
        "deep_maps",
        "echo_any",
        "echo_object",
        "people",
        "repeats",
        "sums",
    ],
)
async def test_columns_of_lists_and_objects_can_be_sent(
    mlflow_models: MLflowModels, name: str
) -> None:
    runtime = await mlflow_models.runtime(name)
    (config,) = (route.config for route in runtime.routes() if "v2_example" in route.config)
    response = await runtime.predict(InferenceRequest.model_validate(config["v2_example"]))
    assert response.outputs


class Picky(PythonModel):  # type: ignore[misc]
    """Answers only texts that begin with `ok`."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        if not model_input["text"].str.startswith("ok").all():
            raise RuntimeError("not ok")
        return model_input


class Slow(PythonModel):  # type: ignore[misc]
    """Answers when the test lets it."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        RELEASED.wait()
        return model_input


RELEASED = threading.Event()


@pytest.mark.parametrize("text, is_shown", [("ok", True), ("bad", False)])
async def test_an_example_that_the_model_refuses_is_not_shown(
    tmp_path: Path, text: str, is_shown: bool
) -> None:
    """Decoding alone would accept both examples and the synthetic one."""
    runtime = await loaded(tmp_path, pd.DataFrame({"text": [text]}), model=Picky())
    example = get_examples(runtime)["v2_example"]
    assert (example is not None) is is_shown
    if is_shown:
        assert (await runtime.predict(InferenceRequest.model_validate(example))).outputs


async def test_a_refused_example_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mlserver"):
        await loaded(tmp_path, pd.DataFrame({"text": ["bad"]}), model=Picky())
    assert caplog.messages == []


async def test_a_model_that_is_slow_with_its_example_is_loaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi_trials, "MAX_TRIAL_SECONDS", 0.05)
    try:
        runtime = await loaded(tmp_path, pd.DataFrame({"text": ["a"]}), model=Slow())
        (text,) = get_examples(runtime)["v2_example"]["inputs"]
        assert text["data"] == ["a"]
    finally:
        RELEASED.set()


async def test_no_example(tmp_path: Path) -> None:
    signature = infer_signature(FRAME[["d"]])
    python_model(Echo(), signature)(tmp_path / "m")
    assert read_example(str(tmp_path / "m")) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"inputs": "' + "x" * MAX_SHOWN_BYTES + '"}', "[" * 100_000]
)
def test_files_that_are_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / EXAMPLE_FILE).write_text(text)
    assert read_example(str(tmp_path)) is None


def test_the_first_row_of_a_large_frame(tmp_path: Path) -> None:
    body = {"dataframe_split": {"columns": ["x"], "data": [["x" * 100]] * 1000}}
    (tmp_path / EXAMPLE_FILE).write_text(json.dumps(body))
    assert read_example(str(tmp_path)) == {
        "dataframe_split": {"columns": ["x"], "data": [["x" * 100]]}
    }
