"""Names of MLServer 1.x that wrap modules with other names: same arguments and results."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from mlserver import MLModel, ModelSettings, Settings
from mlserver.batching import BatchedRequests, load_batching
from mlserver.cloudevents import CloudEventsMiddleware
from mlserver.codecs import NumpyCodec
from mlserver.env import compute_hash_of_file, compute_hash_of_string
from mlserver.errors import InferenceError, MLServerError
from mlserver.middleware import InferenceMiddlewares
from mlserver.raw import extract_raw, inject_raw, pack, unpack
from mlserver.registry import model_initialiser
from mlserver.rest.responses import Response, ServerSentEvent
from mlserver.tracing import get_tracer_provider
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput
from mlserver.utils import AsyncManager, EventLoopBackend

SETTINGS = ModelSettings(name="m", implementation=MLModel)


def request(*rows: float, name: str = "x") -> InferenceRequest:
    return InferenceRequest(inputs=[NumpyCodec.encode_input(name, np.array(rows))])


# -- batching --


def test_requests_are_batched_and_the_response_is_split() -> None:
    batch = BatchedRequests({"a": request(1, 2), "b": request(3)})
    (joined,) = batch.merged_request.inputs
    assert NumpyCodec.decode_input(joined).ravel().tolist() == [1, 2, 3]
    output = NumpyCodec.encode_output("y", np.array([10, 20, 30]))
    parts = batch.split_response(InferenceResponse(model_name="m", outputs=[output]))
    actual = {
        key: NumpyCodec.decode_output(part.outputs[0]).ravel().tolist()
        for key, part in parts.items()
    }
    assert actual == {"a": [10, 20], "b": [30]}
    assert [part.id for part in parts.values()] == ["a", "b"]


def test_requests_of_different_inputs_are_not_batched() -> None:
    for requests in (
        {},
        {"a": request(1), "b": request(1, name="other")},
        {"a": InferenceRequest(inputs=[])},
    ):
        with pytest.raises(MLServerError, match="can be joined if"):
            BatchedRequests(requests)


def test_a_response_with_another_number_of_rows_is_not_split() -> None:
    output = NumpyCodec.encode_output("y", np.array([10]))
    with pytest.raises(InferenceError, match="3 rows"):
        BatchedRequests({"a": request(1, 2), "b": request(3)}).split_response(
            InferenceResponse(model_name="m", outputs=[output])
        )


async def test_any_model_can_be_batched() -> None:
    model = model_initialiser(SETTINGS)
    assert await load_batching(model) is model


# -- raw bytes --


@pytest.mark.parametrize(
    "datatype, data", [("FP32", [1.0, 2.5]), ("INT64", [1, -2]), ("BOOL", [True, False])]
)
def test_raw_tensors_round_trip(datatype: str, data: list[float]) -> None:
    tensor = RequestInput(name="x", shape=[2], datatype=datatype, data=data)
    empty, raw = extract_raw([tensor])
    assert len(empty[0].data) == 0
    assert raw == [pack(tensor)]
    (full,) = inject_raw(empty, raw)
    assert full.data.to_array(datatype, [2]).tolist() == data
    assert unpack(tensor, raw[0]).to_array(datatype, [2]).tolist() == data
    assert inject_raw([tensor], []) == [tensor]


def test_raw_texts() -> None:
    tensor = RequestInput(name="x", shape=[2], datatype="BYTES", data=["a", "bcd"])
    assert pack(tensor) == b"\x01\x00\x00\x00a\x03\x00\x00\x00bcd"


# -- responses of custom handlers --


def test_responses_are_json() -> None:
    assert json.loads(bytes(Response({"a": np.arange(2), "b": b"text"}).body)) == {
        "a": [0, 1],
        "b": "text",
    }
    assert Response("x").headers["content-type"] == "application/json"
    assert json.loads(bytes(Response(request(1)).body))["inputs"][0]["name"] == "x"


def test_events() -> None:
    response = InferenceResponse(model_name="m", outputs=[])
    assert ServerSentEvent(response).encode() == b'data: {"model_name":"m","outputs":[]}\n\n'


# -- other names --


def test_middlewares_add_headers() -> None:
    chain = InferenceMiddlewares(CloudEventsMiddleware(Settings(server_name="s")))
    changed = chain.request_middleware(request(1), SETTINGS)
    assert changed.parameters is not None
    assert changed.parameters.headers is not None
    assert changed.parameters.headers["Ce-Modelid"] == "m"
    answer = chain.response_middleware(
        InferenceResponse(model_name="m", id="i", outputs=[]), SETTINGS
    )
    assert answer.parameters is not None
    assert answer.parameters.headers is not None
    assert answer.parameters.headers["Ce-Id"] == "i"


async def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert await compute_hash_of_file(str(tmp_path / "file")) == expected
    assert await compute_hash_of_string("content") == expected


def test_no_tracing_server_no_provider() -> None:
    assert get_tracer_provider(Settings()) is None


@pytest.mark.parametrize("backend", [None, *EventLoopBackend])
def test_coroutines_are_run(backend: EventLoopBackend | None) -> None:
    assert AsyncManager(backend).run(asyncio.sleep(0, "done")) == "done"
