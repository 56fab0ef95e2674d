"""The class: methods, settings, and addresses of models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlflow
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from mlflow.version import VERSION
from sklearn.linear_model import LinearRegression

from mlserver.errors import InvalidModelURI, MLServerError, Overloaded
from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest
from mlserver_mlflow import MLflowRuntime, invocations
from mlserver_mlflow.codecs import TensorDictCodec
from support.flavor_models import FRAME, TARGET
from support.tracking_store import create_store
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")


def build_request(
    name: str, data: list[Any], parameters: dict[str, Any] | None = None
) -> InferenceRequest:
    inputs = [{"name": name, "datatype": "FP64", "shape": [len(data)], "data": data}]
    return InferenceRequest.model_validate({"inputs": inputs, "parameters": parameters})


@pytest.mark.parametrize("parameters, expected", [(None, None), ({"temp": 0.9}, {"temp": 0.9})])
async def test_predict_is_called_with_data_and_params(
    mlflow_models: MLflowModels, parameters: Any, expected: Any
) -> None:
    runtime = await mlflow_models.runtime("echo_params")
    with patch.object(runtime._model, "predict", return_value=["foo"]) as predict:
        response = await runtime.predict(build_request("d", [1.5], parameters))
    assert predict.call_args.kwargs == {"params": expected}
    assert predict.call_args.args[0]["d"].tolist() == [1.5]
    assert response.outputs[0].model_dump() == {
        "name": "output-1",
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [b"foo"],
        "parameters": {"content_type": "str"},
    }


@pytest.mark.parametrize(
    "body, content_type, params",
    [
        ('{"inputs": [1, 2]}', "application/json", None),
        ('{"instances": [1, 2], "params": {"temp": 0.9}}', "application/json", {"temp": 0.9}),
        ("d\n1\n2\n", "text/csv", None),
    ],
)
async def test_invocations_as_a_method(
    mlflow_models: MLflowModels, body: str, content_type: str, params: Any
) -> None:
    runtime = await mlflow_models.runtime("echo_params")
    with patch.object(runtime._model, "predict", return_value=[7]) as predict:
        response = await runtime.invocations(body, content_type)
    assert list(predict.call_args.args[0].get("d")) == [1.0, 2.0]
    assert predict.call_args.kwargs == {"params": params}
    assert json.loads(bytes(response.body)) == {"predictions": [7]}


@pytest.mark.parametrize("content_type", ["", "application/pdf"])
async def test_invocations_refuses_other_content_types(
    mlflow_models: MLflowModels, content_type: str
) -> None:
    response = await (await mlflow_models.runtime("linear")).invocations("x", content_type)
    assert response.status_code == 415
    assert f"Got '{content_type}'" in json.loads(bytes(response.body))["message"]


async def test_routes(mlflow_models: MLflowModels) -> None:
    runtime = (await mlflow_models("linear")).runtime
    routes = {route.path: route for route in runtime.routes()}
    assert {path: route.static for path, route in routes.items()} == {
        "/ping": "\n",
        "/health": "\n",
        "/version": VERSION,
        "/invocations": None,
    }
    route = routes["/invocations"]
    assert (route.method, route.wire) == ("POST", "mlserver_mlflow.invocations")
    assert json.loads(json.dumps(route.config)) == route.config
    assert (await runtime.ping(), await runtime.mlflow_version()) == ("\n", VERSION)


async def test_model_config_of_the_settings_reaches_the_model(
    mlflow_models: MLflowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def config_of(extra: dict[str, Any]) -> Any:
        parameters = ModelParameters(uri=str(mlflow_models.path("configured")), extra=extra)
        runtime = MLflowRuntime(
            ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters)
        )
        await runtime.load()
        response = await runtime.predict(build_request("d", [1.0]))
        return json.loads(response.outputs[0].data.root[0])

    assert await config_of({}) == {"k": 1, "z": "d"}
    assert await config_of({"model_config": {"k": 2}}) == {"k": 2, "z": "d"}
    monkeypatch.setenv("SERVING_MODEL_CONFIG", '{"k": 3}')
    assert await config_of({}) == {"k": 3, "z": "d"}
    assert await config_of({"model_config": {"k": 2}}) == {"k": 2, "z": "d"}


async def load_from(uri: str | None) -> MLflowRuntime:
    parameters = ModelParameters(uri=uri)
    runtime = MLflowRuntime(
        ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters)
    )
    await runtime.load()
    return runtime


async def test_where_a_model_may_be(mlflow_models: MLflowModels) -> None:
    path = mlflow_models.path("linear")
    for uri in (str(path), f"{path}/", f"file:{path}", f"file://{path}", str(path / "MLmodel")):
        assert (await load_from(uri)).inputs is not None


async def test_where_no_model_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelURI):
        await load_from(str(tmp_path / "nothing"))
    with pytest.raises(InvalidModelURI):
        await load_from(None)
    with pytest.raises(MLServerError, match="is not an MLflow model, it has no file 'MLmodel'"):
        await load_from(str(tmp_path))


async def test_addresses_that_mlflow_resolves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", create_store(tmp_path / "mlflow.db"))
    monkeypatch.chdir(tmp_path)
    with mlflow.start_run() as run:
        model = LinearRegression().fit(FRAME, TARGET)
        signature = infer_signature(FRAME, TARGET)
        info = mlflow.sklearn.log_model(
            model,
            name="m",
            signature=signature,
            registered_model_name="Reg",
            pip_requirements=["mlflow"],
        )
    mlflow.MlflowClient().set_registered_model_alias("Reg", "champion", 1)
    for uri in (
        "models:/Reg/1",
        "models:/Reg@champion",
        info.model_uri,
        f"runs:/{run.info.run_id}/m",
    ):
        assert (await load_from(uri)).inputs is not None
    for uri in ("models:/Reg@missing", "models:/Reg/2", "models:/None/1"):
        with pytest.raises(MLServerError, match=f"Model m cannot be loaded from '{uri}'"):
            await load_from(uri)


async def streamed(
    mlflow_models: MLflowModels, model: str, request: InferenceRequest
) -> AsyncIterator[Any]:
    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request

    async for response in (await mlflow_models.runtime(model)).predict_stream(requests()):
        yield response.outputs[0].data.root


def text_of(text: str) -> InferenceRequest:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    return InferenceRequest.model_validate({"inputs": [tensor]})


async def test_a_streamable_model_streams(mlflow_models: MLflowModels) -> None:
    assert [chunk async for chunk in streamed(mlflow_models, "spells", text_of("abc"))] == [
        [b"a"],
        [b"b"],
        [b"c"],
    ]


class CountsColumns(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Streams the number of columns of a row."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return [len(model_input)]

    def predict_stream(self, context: Any, model_input: Any, params: Any = None) -> Any:
        yield self.predict(context, model_input)


@pytest.mark.parametrize("name", ["", 0])
async def test_a_streamable_model_whose_column_has_a_falsy_name(tmp_path: Path, name: Any) -> None:
    schema = Schema([ColSpec("double", "first"), ColSpec("double", name)])
    mlflow.pyfunc.save_model(
        tmp_path / "m",
        python_model=CountsColumns(),
        signature=ModelSignature(inputs=schema),
        streamable=True,
        pip_requirements=["mlflow"],
    )
    runtime = await load_from(str(tmp_path / "m"))

    async def requests() -> AsyncIterator[InferenceRequest]:
        columns = [tensor.name for tensor in runtime.inputs or []]
        inputs = [
            {"name": column, "datatype": "FP64", "shape": [1], "data": [2.0]} for column in columns
        ]
        yield InferenceRequest.model_validate({"inputs": inputs})

    responses = [response async for response in runtime.predict_stream(requests())]
    assert [response.outputs[0].data.root for response in responses] == [[2]]


async def test_other_models_answer_a_stream_once(mlflow_models: MLflowModels) -> None:
    assert (
        len(
            [
                chunk
                async for chunk in streamed(mlflow_models, "echo_params", build_request("d", [1.0]))
            ]
        )
        == 1
    )


async def test_an_error_within_a_stream_comes_after_its_chunks(mlflow_models: MLflowModels) -> None:
    chunks = streamed(mlflow_models, "spells", text_of("a1"))
    assert await anext(chunks) == [b"a"]
    with pytest.raises(MLServerError, match="1 is no letter"):
        await anext(chunks)


def test_errors_of_the_server_are_written_in_mlflows_format() -> None:
    status, body, content_type = invocations.write_error(Overloaded("full"), {})
    assert (status, content_type) == (429, "application/json")
    assert json.loads(body) == {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "full"}
    status, body, _ = invocations.write_error(MLServerError("gone", 404), {})
    assert (status, json.loads(body)["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_the_dict_codec_goes_both_ways() -> None:
    import numpy as np

    arrays = {"x": np.array([[1.0, 2.0]]), "y": np.array([1, 2])}
    assert TensorDictCodec.can_encode(arrays)
    assert not TensorDictCodec.can_encode({"x": [1]})
    response = TensorDictCodec.encode_response("m", arrays)
    assert [(output.name, output.shape) for output in response.outputs] == [
        ("x", [1, 2]),
        ("y", [2, 1]),
    ]
    decoded = TensorDictCodec.decode_response(response)
    assert {name: array.tolist() for name, array in decoded.items()} == {
        "x": [[1.0, 2.0]],
        "y": [[1], [2]],
    }
    assert (
        TensorDictCodec.decode_request(TensorDictCodec.encode_request(arrays)).keys()
        == arrays.keys()
    )


def test_the_wire_format_is_light() -> None:
    code = (
        "import sys, mlserver_mlflow, mlserver_mlflow.invocations as wire\n"
        "config = {'kind': 'columns', 'columns': [['a', 'double']], 'output': 'array', 'rank': 1}\n"
        'body = b\'{"inputs": {"a": [1, 2]}}\'\n'
        "request = wire.read_request(body, 'application/json', config)\n"
        "assert request.inputs[0].shape == [2, 1]\n"
        "print(sorted(set(sys.modules) & {'mlflow', 'pandas', 'sklearn', 'numpy', 'fastapi'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
