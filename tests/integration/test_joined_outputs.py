"""Responses do not depend on the batch: MLflow models behind a real server, over every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from mlflow.types import DataType

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.mlflow_results import inputs_of, save
from support.repository import write_model, write_settings
from support.server import Server
from support.slow import slow

# A custom runtime that returns a frame with the pandas codec.
FRAMES = """
import json

import pandas as pd

from mlserver import MLModel
from mlserver.codecs import PandasCodec, StringCodec


class Frames(MLModel):
    async def predict(self, payload):
        values = [json.loads(text) for text in StringCodec.decode_input(payload.inputs[0])]
        form = StringCodec.decode_input(payload.inputs[1])[0]
        column = pd.Categorical(values) if form == "category" else pd.array(values, dtype=form)
        return PandasCodec.encode_response(self.name, pd.DataFrame({"x": column}))
"""
DECLARED: dict[str, DataType | None] = {
    "free": None,
    "texts": DataType.string,
    "longs": DataType.long,
}
MEMBERS = 3
# (model, form, values of three requests): each but the first could change the first one's response
BATCHES: list[tuple[str, str, list[list[Any]]]] = [
    ("free", "frame", [["cat"], [None], ["dog", "dog"]]),
    ("free", "Int64", [[1], [None], [2, 3]]),
    ("free", "boolean", [[True], [None], [False]]),
    ("free", "string", [["cat"], [None], ["dog"]]),
    ("free", "string[pyarrow]", [["cat"], [None], ["dog"]]),
    ("free", "int32[pyarrow]", [[1], [None], [2]]),
    ("free", "category", [["cat"], [1], [None]]),
    ("free", "category", [[1], [2.5], [3]]),
    ("free", "object frame", [[1], ["cat"], [{"a": 1}]]),
    ("free", "frame", [[1], [2.5], [3]]),
    ("free", "array", [[1], [2.5], [3]]),
    ("free", "array", [["cat"], [1], [True]]),
    ("free", "list", [[1], [2.5], [3]]),
    ("free", "list", [["cat"], [None], [2]]),
    ("free", "frame", [[{"date": "2020-01-02"}], [{"time": "2020-01-02T03:04:05"}], [None]]),
    ("free", "datetime64", [["2020-01-02"], ["2020-01-02T03:04:05"], ["2020-01-03"]]),
    ("free", "masked", [[1], [None], [2]]),
    ("texts", "frame", [["cat"], [None], ["dog"]]),
    ("texts", "list", [["cat"], [None], ["dog"]]),
    ("texts", "objects", [["cat"], [None], ["dog"]]),
    ("longs", "frame", [[1], [2.5], [None]]),
    ("longs", "list", [[1], [2.0], [True]]),
    ("frames", "object", [["cat"], [None], ["dog", 1]]),
    ("frames", "string", [["cat"], [None], ["dog"]]),
    ("frames", "Int64", [[1], [None], [2**60]]),
    ("frames", "category", [["cat"], ["dog"], [None]]),
]


@pytest.fixture(scope="module", params=[slow(0), 2])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("joined")
    for name, declared in DECLARED.items():
        uri = str(save(folder / "saved" / name, declared))
        common = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": uri}}
        write_settings(folder / "served" / name, name=name, **common)
        joined = f"{name}-joined"
        # A batch is closed when it is full.
        write_settings(
            folder / "served" / joined,
            name=joined,
            max_batch_size=MEMBERS,
            max_batch_time=60.0,
            **common,
        )
    write_model(folder / "served" / "frames", "Frames", source=FRAMES)
    batches = {"max_batch_size": MEMBERS, "max_batch_time": 60.0}
    write_model(folder / "served" / "frames-joined", "Frames", source=FRAMES, **batches)
    with Server(folder / "served", workers=request.param) as running:
        yield running


def by_json(server: Server, model: str, values: list[str], form: str) -> Any:
    answer = server.infer(model, inputs_of(values, form))
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return document["parameters"], document["outputs"]


def by_binary(server: Server, model: str, values: list[str], form: str) -> Any:
    answer = server.infer(model, inputs_of(values, form), parameters={"binary_data_output": True})
    assert answer.status_code == 200, answer.text
    at = int(answer.headers["inference-header-content-length"])
    document = json.loads(answer.content[:at])
    return document["parameters"], document["outputs"], answer.content[at:]


def by_grpc(server: Server, model: str, values: list[str], form: str) -> Any:
    message = pb.ModelInferRequest(model_name=model)
    for tensor in inputs_of(values, form):
        added = message.inputs.add(name=tensor["name"], datatype="BYTES", shape=tensor["shape"])
        added.contents.bytes_contents.extend(text.encode() for text in tensor["data"])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
    answer.model_name = answer.id = ""
    return answer


WAYS: dict[str, Callable[[Server, str, list[str], str], Any]] = {
    "json": by_json,
    "binary": by_binary,
    "grpc": by_grpc,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model, form, batch", BATCHES, ids=str)
def test_a_batched_response_equals_the_unbatched_one(
    server: Server, way: str, model: str, form: str, batch: list[list[Any]]
) -> None:
    texts = [[json.dumps(value) for value in values] for values in batch]
    ask = WAYS[way]
    alone = [ask(server, model, values, form) for values in texts]
    with ThreadPoolExecutor(MEMBERS) as pool:
        joined = list(pool.map(lambda values: ask(server, f"{model}-joined", values, form), texts))
    assert joined == alone


def test_a_declared_string_always_has_its_datatype(server: Server) -> None:
    for values, data in (
        (['"cat"'], ["cat"]),
        (["null"], [None]),
        (['"cat"', "null"], ["cat", None]),
    ):
        _, (output,) = by_json(server, "texts", values, "frame")
        assert (output["datatype"], output["parameters"], output["data"]) == (
            "BYTES",
            {"content_type": "str"},
            data,
        )
    _, (head,), blob = by_binary(server, "texts", ['"cat"', "null"], "frame")
    assert head["parameters"] == {"content_type": "str", "missing": "[1]", "binary_data_size": 11}
    assert blob == b"\3\0\0\0cat\0\0\0\0"
    output = by_grpc(server, "texts", ['"cat"', "null"], "frame").outputs[0]
    assert list(output.contents.bytes_contents) == [b"cat", b""]
    assert output.parameters["content_type"].string_param == "str"
    assert output.parameters["missing"].string_param == "[1]"


def test_a_declared_long_has_its_datatype_where_it_is_one(server: Server) -> None:
    for form in ("frame", "list", "Int64", "object frame", "category", "array"):
        for values in ["1", "2"], ["1.0"], ["true"]:
            if form == "Int64" and values != ["1", "2"]:
                continue
            _, (output,) = by_json(server, "longs", values, form)
            assert output["datatype"] == "INT64", (form, values, output)


def test_infinity_is_not_the_same_as_nan(server: Server) -> None:
    values = ['{"float": "inf"}', '{"float": "-inf"}', '{"float": "nan"}', "0.5"]
    _, (output,) = by_json(server, "free", values, "array")
    assert output["data"] == [None, None, None, 0.5]
    assert output["parameters"] == {"content_type": "np", "infinity": [0], "negative_infinity": [1]}


def test_missing_texts_are_sent_alike_over_every_format(server: Server) -> None:
    """`missing` names elements that are null."""
    message = pb.ModelInferRequest(model_name="texts")
    for name, values in ("value", [b'"a"', b""]), ("form", [b"frame", b"frame"]):
        added = message.inputs.add(name=name, datatype="BYTES", shape=[2])
        added.contents.bytes_contents.extend(values)
    message.inputs[0].parameters["missing"].string_param = "[1]"
    inputs = inputs_of(['"a"', "x"], "frame")
    inputs[0]["data"][1] = None
    answer = server.infer("texts", inputs)
    assert answer.json()["outputs"][0]["data"] == ["a", None]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        output = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60).outputs[0]
    assert list(output.contents.bytes_contents) == [b"a", b""]
    assert output.parameters["missing"].string_param == "[1]"
