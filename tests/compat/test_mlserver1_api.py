"""The API of MLServer 1.x: arguments, results and texts as in release 1.7.1."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlserver import MLModel, ModelSettings, Settings
from mlserver.batching import BatchedRequests
from mlserver.cli.infer import command as infer
from mlserver.cli.serve import load_settings
from mlserver.cloudevents import CloudEventsTypes
from mlserver.codecs import Base64Codec, DatetimeCodec, NumpyCodec, PandasCodec, StringCodec
from mlserver.errors import MLServerError, ModelLoadError, ModelUnloadError
from mlserver.handlers.custom import CustomHandler, get_custom_handlers, register_custom_handler
from mlserver.metrics import REGISTRY, MetricNotFound, MetricsRegistry, register
from mlserver.raw import pack, unpack
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, RepositoryIndexResponse, RequestInput, TensorData
from mlserver.utils import get_wrapped_method
from support.repository import write_model, write_server_settings

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

# -- TensorData --


@pytest.mark.parametrize(
    "root",
    [
        [1, 2, [3]],
        [],
        "text",
        5,
        None,
        {"a": 1},
        [True, None, 0.5],
        ["ü"],
        [[1.0, 2.0], [3.0, 4.0]],
    ],
)
def test_tensor_data_is_read_and_written(root: Any) -> None:
    text = json.dumps(root, ensure_ascii=False, separators=(",", ":"))
    variants = [
        TensorData(root),
        TensorData(root=root),
        TensorData.model_validate(root),
        TensorData.model_validate_json(text),
        TensorData.model_construct(root),
        TensorData.parse_obj(root),
        TensorData.parse_raw(text),
        TensorData.parse_raw(text.encode()),
        TensorData.construct(root),
        TensorData.validate(root),
        TensorData.model_validate(TensorData(root)),
    ]
    for data in variants:
        assert type(data) is TensorData
        assert data.root == data.model_dump() == data.dict() == data.model_dump(mode="json") == root
        assert data.model_dump_json() == data.json() == text
        assert data.copy() == data.model_copy() == data.model_copy(deep=True) == data
    assert list(TensorData.model_fields) == ["root"]
    assert TensorData([1]).model_fields_set == {"root"}
    assert (
        TensorData.model_json_schema()
        == TensorData.schema()
        == json.loads(TensorData.schema_json())
    )


def test_tensor_data_of_other_representations() -> None:
    array = TensorData.from_array(np.array([[1.5, math.nan], [2.0, 3.0]]))
    assert array.model_dump() == [1.5, None, 2.0, 3.0]
    assert array.json() == "[1.5,null,2.0,3.0]"
    assert TensorData([1.5, math.nan]).model_dump_json() == "[1.5,null]"
    assert TensorData([b"ab"]).json() == '["ab"]'
    assert TensorData([1]).model_copy(update={"root": [2]}) == [2]
    copy = TensorData([[1]]).copy(deep=True)
    copy.root[0].append(2)
    assert copy == [[1, 2]]


def test_invalid_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="EOF while parsing"):
        TensorData.parse_raw("[1,")


# -- messages --


def test_messages() -> None:
    tensor: dict[str, Any] = {"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]}
    input_tensor = RequestInput(**tensor)
    assert input_tensor.model_dump() == tensor
    assert input_tensor.dict() == {**tensor, "parameters": None}
    assert json.loads(input_tensor.json()) == {**tensor, "parameters": None}
    request = InferenceRequest.parse_raw(json.dumps({"inputs": [tensor]}))
    assert request.dict() == {
        "id": None,
        "parameters": None,
        "inputs": [{**tensor, "parameters": None}],
        "outputs": None,
    }
    assert (
        request.json(exclude_none=True)
        == request.model_dump_json()
        == json.dumps({"inputs": [tensor]}, separators=(",", ":"))
    )
    index = RepositoryIndexResponse.parse_obj([{"name": "m", "state": "READY", "reason": ""}])
    plain: Any = index.dict()
    assert plain == [{"name": "m", "version": None, "state": "READY", "reason": ""}]


# -- settings --


def test_settings_are_written_as_they_are_set() -> None:
    assert ModelSettings(name="m", implementation=MLModel).dict() == {
        "implementation": "mlserver.model.MLModel",
        "name": "m",
    }
    expected: dict[str, Any] = {
        "implementation": "a.B",
        "name": "m",
        "max_batch_size": 3,
        "parameters": {"uri": "x", "extra": {"a": 1}},
    }
    settings = ModelSettings(**expected)
    assert settings.dict() == expected
    assert settings.json() == json.dumps(
        {key: expected[key] for key in settings.dict()}, separators=(",", ":")
    )
    assert ModelSettings.parse_obj(settings.dict()).dict() == expected
    assert ModelSettings.parse_raw(settings.json()).dict() == expected
    assert settings.parameters is not None
    assert settings.parameters.dict() == expected["parameters"]
    assert settings.dict(exclude_unset=False)["max_batch_time"] == 0.0
    assert "implementation_" in settings.model_dump()
    assert Settings().dict() == {}
    assert Settings(debug=True).json() == '{"debug":true}'
    assert ModelParameters(uri="x").json() == '{"uri":"x"}'


async def test_load_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models" / "echo")
    write_server_settings(tmp_path / "models", http_port=9998)
    monkeypatch.syspath_prepend(str(tmp_path))  # restores sys.path at the end
    settings, models = await load_settings(str(tmp_path / "models"))
    assert (settings.http_port, settings.model_repository_root) == (9998, str(tmp_path / "models"))
    assert [model.name for model in models] == ["echo"]
    monkeypatch.chdir(tmp_path)
    settings, models = await load_settings(folder="models")
    assert (settings.http_port, [model.name for model in models]) == (9998, ["echo"])
    settings, models = await load_settings()
    assert (settings.http_port, settings.model_repository_root, len(models)) == (8080, ".", 1)
    write_server_settings(tmp_path / "models", load_models_at_startup=False)
    assert (await load_settings("models"))[1] == []
    with pytest.raises(MLServerError, match="does not exist"):
        await load_settings("missing")


# -- names --


def test_types_of_cloud_events() -> None:
    assert CloudEventsTypes.Request.value == "io.seldon.serving.inference.request"
    assert CloudEventsTypes.Response.value == "io.seldon.serving.inference.response"


def test_arguments_of_codecs() -> None:
    assert PandasCodec.JsonContentType == "pd_json"
    for codec, payload, text in (
        (StringCodec, ["a"], "a"),
        (Base64Codec, [b"a"], "YQ=="),
        (DatetimeCodec, ["2000-01-01"], "2000-01-01"),
    ):
        for use_bytes, element in ((False, text), (True, text.encode())):
            assert codec.encode_input("x", payload, use_bytes).data[0] == element
            assert codec.encode_output("x", payload, use_bytes).data[0] == element
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": ["a"]})
    assert PandasCodec.encode_request(frame, False).inputs[0].data[0] == "a"
    assert PandasCodec.encode_response("m", frame, "1", False).outputs[0].data[0] == "a"


def test_raw_contents() -> None:
    tensor = RequestInput(name="x", shape=[2], datatype="INT32", data=[1, 2])
    assert unpack(tensor, pack(tensor)) == [1, 2]
    assert unpack(elem=tensor, raw=pack(elem=tensor)) == [1, 2]


def test_an_empty_list_of_requests() -> None:
    batch = BatchedRequests()
    assert batch.inference_requests == {}
    assert batch.merged_request.inputs == []
    request = InferenceRequest(inputs=[NumpyCodec.encode_input("x", np.array([1]))])
    assert BatchedRequests(inference_requests={"a": request}).merged_request.inputs[0].shape == [
        1,
        1,
    ]


def test_custom_handlers_are_pydantic_models() -> None:
    handler = CustomHandler(rest_path="/a")
    assert (handler.rest_path, handler.rest_method) == ("/a", "POST")
    assert handler.dict().items() >= {"rest_path": "/a", "rest_method": "POST"}.items()
    assert handler == CustomHandler.parse_obj({"rest_path": "/a", "rest_method": "POST"})

    class Model:
        def method(self) -> None: ...

    register_custom_handler(handler, Model.method)
    ((actual, method),) = get_custom_handlers(Model())
    assert actual is handler
    assert method.__name__ == "method"


def test_errors_of_runtimes() -> None:
    for error in (ModelLoadError("no"), ModelUnloadError("no")):
        assert isinstance(error, MLServerError)
        assert (str(error), error.status_code) == ("no", 500)


def test_the_registry_of_metrics() -> None:
    assert isinstance(REGISTRY, MetricsRegistry)
    assert not REGISTRY.exists("t_unknown")
    with pytest.raises(MetricNotFound, match="t_unknown"):
        REGISTRY.get("t_unknown")
    histogram = register("t_registry", "x")
    assert REGISTRY.exists("t_registry")
    assert REGISTRY.get("t_registry") is histogram


def test_wrapped_methods() -> None:
    def inner() -> None: ...

    def outer() -> None: ...

    outer.__wrapped__ = inner  # type: ignore[attr-defined]
    assert get_wrapped_method(f=outer) is inner


# -- the command line --


@pytest.mark.parametrize(
    "value, expected",
    [
        ("A:1 B:2", {"A": "1", "B": "2"}),
        ("A:1", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("  A:1\tB:2\n", {"A": "1", "B": "2"}),
        ("Authorization: Bearer abc", {"Authorization": "Bearer abc"}),
        ("A: 1\nB:2 C:3", {"A": "1", "B": "2", "C": "3"}),
        ("X:see https://host:1/x", {"X": "see https://host:1/x"}),
        ("", {}),
    ],
)
def test_request_headers_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: dict[str, str]
) -> None:
    monkeypatch.setenv("MLSERVER_INFER_REQUEST_HEADERS", value)
    arguments = ["-m", "m", "-i", "in.jsonl", "-o", "out.jsonl"]
    context = infer.make_context("infer", list(arguments))
    assert dict(context.params["headers"]) == expected
    parsed = infer.make_context("infer", [*arguments, "-H", "C: 3 D:4"])
    assert parsed.params["headers"] == (("C", "3 D:4"),)
