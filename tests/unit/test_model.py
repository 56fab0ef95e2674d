"""MLModel: metadata, and the order in which codecs are selected."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlserver import MLModel, ModelSettings
from mlserver.codecs import (
    Base64Codec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
    get_decoded,
    get_decoded_or_raw,
    has_decoded,
)
from mlserver.codecs.errors import CodecNotFound
from mlserver.codecs.utils import inject_batch_dimension
from mlserver.custom_routes import Route, custom_handler
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)


def model(
    content_type: str | None = None,
    inputs: dict[str, str] | None = None,
    outputs: dict[str, str] | None = None,
) -> MLModel:
    """A model whose metadata gives these content types."""
    return MLModel(
        ModelSettings(
            name="m",
            implementation=MLModel,
            parameters={"content_type": content_type, "version": "v1"},
            inputs=[described(name, kind) for name, kind in (inputs or {}).items()],
            outputs=[described(name, kind) for name, kind in (outputs or {}).items()],
        )
    )


def described(name: str, content_type: str) -> MetadataTensor:
    return MetadataTensor(
        name=name, datatype="BYTES", shape=[-1], parameters=Parameters(content_type=content_type)
    )


def text(name: str = "x", content_type: str | None = None) -> RequestInput:
    parameters = Parameters(content_type=content_type) if content_type else None
    return RequestInput(
        name=name, shape=[1], datatype="BYTES", data=["UHl0aG9u"], parameters=parameters
    )


# -- what it is --


async def test_metadata() -> None:
    described_model = model("pd", {"a": "np"}, {"b": "str"})
    assert (described_model.name, described_model.version, described_model.ready) == (
        "m",
        "v1",
        False,
    )
    assert described_model.row_wise is False
    metadata = await described_model.metadata()
    assert metadata.model_dump() == {
        "name": "m",
        "versions": [],
        "platform": "",
        "inputs": [
            {"name": "a", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "np"}}
        ],
        "outputs": [
            {"name": "b", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}}
        ],
        "parameters": {"content_type": "pd"},
    }


async def test_metadata_without_parameters() -> None:
    bare = MLModel(ModelSettings(name="m", implementation=MLModel))
    assert bare.version is None
    assert (await bare.metadata()).parameters is None


async def test_inputs_and_outputs_that_load_sets() -> None:
    loaded = model()
    loaded.inputs, loaded.outputs = [described("x", "base64")], [described("y", "base64")]
    assert loaded.decode(text()) == [b"Python"]
    encoded = loaded.encode([b"Python"], RequestOutput(name="y"))
    assert encoded.parameters == Parameters(content_type="base64")
    assert (await loaded.metadata()).inputs == loaded.inputs == loaded.settings.inputs


async def test_defaults() -> None:
    bare = model()
    assert await bare.load() is True
    assert await bare.unload() is True
    with pytest.raises(NotImplementedError, match=r"predict\(\) method not implemented"):
        await bare.predict(InferenceRequest(inputs=[]))


async def test_default_stream_predicts_the_first_request() -> None:
    class Echo(MLModel):
        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            return InferenceResponse(model_name=self.name, id=payload.id, outputs=[])

    async def requests() -> AsyncIterator[InferenceRequest]:
        for number in "12":
            yield InferenceRequest(id=number, inputs=[])

    echo = Echo(ModelSettings(name="m", implementation=MLModel))
    assert [response.id async for response in echo.predict_stream(requests())] == ["1"]


def test_routes_are_the_custom_handlers() -> None:
    class Routed(MLModel):
        @custom_handler("/explain", "GET")
        def explain(self) -> str:
            return self.name

    assert Routed(ModelSettings(name="m", implementation=MLModel)).routes() == [
        Route("/explain", "GET", handler="explain")
    ]


# -- decoding --


@pytest.mark.parametrize(
    "own, metadata, default, expected",
    [
        ("base64", "str", None, [b"Python"]),
        (None, "base64", StringCodec, [b"Python"]),
        (None, None, StringCodec, ["UHl0aG9u"]),
        (None, None, None, TensorData(["UHl0aG9u"])),
        ("unknown", "base64", None, TensorData(["UHl0aG9u"])),
        ("unknown", "base64", StringCodec, ["UHl0aG9u"]),
    ],
)
def test_decode(own: str | None, metadata: str | None, default: Any, expected: Any) -> None:
    inputs = {"x": metadata} if metadata else {}
    assert model(inputs=inputs).decode(text(content_type=own), default) == expected


def test_decoded_values_are_used_unless_a_content_type_differs() -> None:
    request_input = RequestInput(
        name="x",
        shape=[1],
        datatype="BYTES",
        data=["a"],
        parameters=Parameters(_decoded_payload=None),
    )
    assert has_decoded(request_input)
    assert model().decode(request_input, StringCodec) is None
    assert model(inputs={"x": "str"}).decode(request_input) == ["a"]
    assert get_decoded(request_input) == ["a"]


def test_decoded_values_are_not_dumped() -> None:
    request_input = text(content_type="base64")
    model().decode(request_input)
    assert get_decoded_or_raw(request_input) == [b"Python"]
    assert request_input == text(content_type="base64")
    assert request_input.model_dump() == text(content_type="base64").model_dump()
    assert get_decoded(text()) is None
    assert get_decoded_or_raw(text()) == TensorData(["UHl0aG9u"])
    assert get_decoded_or_raw(empty := InferenceRequest(inputs=[])) is empty


@pytest.mark.parametrize("own, of_model", [("str", None), (None, "str"), ("str", "np")])
def test_decode_request_by_content_type(own: str | None, of_model: str | None) -> None:
    request = InferenceRequest(
        parameters=Parameters(content_type=own) if own else None, inputs=[text()]
    )
    assert model(of_model).decode_request(request, NumpyRequestCodec) == ["UHl0aG9u"]


@pytest.mark.parametrize("content_type", [None, "unknown", "base64", "datetime"])
def test_decode_request_without_a_codec(content_type: str | None) -> None:
    request = InferenceRequest(inputs=[text(content_type="base64")])
    assert model(content_type).decode_request(request) is request
    assert get_decoded(request.inputs[0]) == [b"Python"]
    assert model(content_type).decode_request(request, StringRequestCodec) == [b"Python"]


def test_inputs_are_decoded_before_the_request() -> None:
    request = NumpyRequestCodec.encode_request(np.array([[1.0, 2.0]]))
    decoded = model("str").decode_request(InferenceRequest(inputs=request.inputs))
    np.testing.assert_array_equal(decoded, np.array([[1.0, 2.0]]))


def test_a_frame_by_the_metadata() -> None:
    request = InferenceRequest(
        inputs=[
            RequestInput(name="number", shape=[1], datatype="FP32", data=[7.5]),
            RequestInput(name="text", shape=[1, 1], datatype="BYTES", data=[b"a"]),
            RequestInput(name="blob", shape=[1, 1], datatype="BYTES", data=["UHl0aG9u"]),
            RequestInput(name="list", shape=[1, 1], datatype="BYTES", data=["[1, 2]"]),
            RequestInput(name="time", shape=[1, 1], datatype="BYTES", data=["2020-01-02"]),
        ]
    )
    kinds = {"number": "np", "text": "str", "blob": "base64", "list": "pd_json", "time": "datetime"}
    frame = model("pd", kinds).decode_request(request)
    assert frame.iloc[0].tolist() == [7.5, "a", b"Python", [1, 2], dt.datetime(2020, 1, 2)]
    assert frame["number"].dtype == np.float32


def test_encoded_frame_decodes_to_an_equal_one_with_other_metadata() -> None:
    frame = pd.DataFrame(
        {"a": pd.array([1, None], dtype="Int64"), "b": ["x", None], "c": pd.Categorical(["u", "v"])}
    )
    decoded = model("pd", {"a": "np", "b": "str", "c": "str"}).decode_request(
        PandasCodec.encode_request(frame)
    )
    pd.testing.assert_frame_equal(decoded, frame)


# -- encoding --


@pytest.mark.parametrize(
    "own, metadata, default, payload, expected",
    [
        ("base64", "str", None, ["a"], "base64"),
        (None, "base64", StringCodec, ["a"], "base64"),
        (None, None, None, ["a"], "str"),
        (None, None, None, np.array([1]), "np"),
        (None, None, Base64Codec, ("a",), "base64"),
        ("unknown", "base64", StringCodec, ["a"], "str"),
    ],
)
def test_encode(
    own: str | None, metadata: str | None, default: Any, payload: Any, expected: str
) -> None:
    parameters = Parameters(content_type=own) if own else None
    outputs = {"y": metadata} if metadata else {}
    encoded = model(outputs=outputs).encode(
        payload, RequestOutput(name="y", parameters=parameters), default
    )
    assert encoded.name == "y"
    assert encoded.parameters == Parameters(content_type=expected)


def test_encode_without_a_codec() -> None:
    with pytest.raises(
        CodecNotFound, match="Codec not found for output field with name 'y' and type dict"
    ):
        model().encode({}, RequestOutput(name="y"))
    assert CodecNotFound("y", "dict").status_code == 500
    assert CodecNotFound("x", "int", is_input=True).status_code == 400
    with pytest.raises(
        CodecNotFound, match="Codec not found for output response with name 'm' and type tuple"
    ):
        model().encode_response(())


@pytest.mark.parametrize("of_model", [None, "np", "pd", "str", "unknown"])
@pytest.mark.parametrize(
    "payload, expected",
    [(np.array([1]), "np"), (["a"], "str"), ([], "str"), (pd.DataFrame({"a": [1]}), "pd")],
)
def test_encode_response_by_the_payload(of_model: str | None, payload: Any, expected: str) -> None:
    response = model(of_model).encode_response(payload)
    assert response.parameters == Parameters(content_type=expected)
    assert (response.model_name, response.model_version) == ("m", "v1")


def test_encode_response_by_default() -> None:
    assert model().encode_response(("a",), StringRequestCodec).outputs == [
        ResponseOutput(
            name="output-1",
            shape=[1, 1],
            datatype="BYTES",
            data=[b"a"],
            parameters=Parameters(content_type="str"),
        )
    ]


def test_batch_dimension() -> None:
    assert [inject_batch_dimension(shape) for shape in ([], [3], [3, 1], [0, 2])] == [
        [1],
        [3, 1],
        [3, 1],
        [0, 2],
    ]
    assert NumpyCodec.encode_output("y", np.array([1, 2])).shape == [2, 1]
