"""The example models: each trains, loads from its settings file and serves its request."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver_mlflow import MLflowRuntime
from support.models import WINE, wine_data

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
OUTPUTS: dict[str, dict[str, Any]] = {
    "dataframe": {"by": [b"foot", b"bus"]},
    "tensor": {"output-1": [0, 1, 2]},
    "tensor_dict": {"similarity": pytest.approx([0.7071067690849304, 1.0]), "match": [False, True]},
}


def train_wine(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / "wine" / "train.py"), *arguments]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def answer(folder: Path, request: dict[str, Any]) -> InferenceResponse:
    settings = ModelSettings.parse_file(folder / "model-settings.json")
    runtime = settings.implementation(settings)
    assert isinstance(runtime, MLflowRuntime)
    assert await runtime.load()
    return await runtime.predict(InferenceRequest.model_validate(request))


@pytest.mark.parametrize("example", OUTPUTS)
async def test_an_example_answers_its_request(tmp_path: Path, example: str) -> None:
    train = runpy.run_path(str(EXAMPLES / example / "train.py"))
    train["train"](tmp_path)
    train["describe"](tmp_path)
    response = await answer(tmp_path, json.loads((tmp_path / "request.json").read_text()))
    assert {output.name: list(output.data.root) for output in response.outputs} == OUTPUTS[example]


@pytest.mark.slow
async def test_the_wine_example_gives_the_result_of_the_quickstart(tmp_path: Path) -> None:
    data = wine_data()
    if data is None:
        pytest.skip("the red wine data is not here")
    printed = train_wine(
        tmp_path, "0.5", "0.5", "--data", str(data), "--settings", "model-settings.json"
    )
    assert (Path(printed.splitlines()[-1]) / "MLmodel").is_file()
    inputs: list[dict[str, Any]] = [
        {"name": name, "shape": [1], "datatype": "FP32", "data": [value]}
        for name, value in WINE.items()
    ]
    for content_type, of_inputs in ((None, None), ("pd", "np")):
        for tensor in inputs:
            tensor["parameters"] = {"content_type": of_inputs}
        response = await answer(
            tmp_path, {"inputs": inputs, "parameters": {"content_type": content_type}}
        )
        (output,) = response.outputs
        assert output.data.root == pytest.approx([5.5768839], abs=5e-8)
        assert (output.name, str(output.datatype), output.shape) == ("quality", "FP64", [1, 1])
        assert output.parameters is not None
        assert output.parameters.content_type == "np"
