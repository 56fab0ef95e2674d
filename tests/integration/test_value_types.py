"""Values keep their types in requests and responses over every format, without a signature."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.mlflow_typed import save
from support.repository import write_settings
from support.server import Server
from support.slow import slow

BLOBS = [b"\x89\xff", b"abc"]
# result -> datatype, content type and data of its one output
ENCODED = {
    "rounded": ("BYTES", "pd_json", ["9007199254740993", "0.5"]),
    "signs": ("BYTES", "pd_json", ["9223372036854775808", "-1"]),
    "booleans": ("BYTES", "pd_json", ["true", "2"]),
    "big": ("BYTES", "pd_json", ["1180591620717411303424"]),
    "masked": ("BYTES", "pd_json", ["1", "null"]),
    "none": ("BYTES", "pd_json", ["null"]),
}


@pytest.fixture(scope="module", params=[slow(0), 2])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("typed")
    parameters = {"uri": str(save(folder / "saved"))}
    write_settings(
        folder / "served",
        name="typed",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters=parameters,
    )
    with Server(folder / "served", workers=request.param) as running:
        yield running


def by_grpc(server: Server, blobs: list[bytes], content_type: str | None = None) -> list[bytes]:
    message = pb.ModelInferRequest(model_name="typed")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[len(blobs)])
    tensor.contents.bytes_contents.extend(blobs)
    if content_type is not None:
        tensor.parameters["content_type"].string_param = content_type
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
    return list(answer.outputs[0].contents.bytes_contents)


def by_binary(server: Server, blobs: list[bytes]) -> list[str]:
    block = b"".join(len(blob).to_bytes(4, "little") + blob for blob in blobs)
    tensor = {
        "name": "x",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(block)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-type": "application/octet-stream",
    }
    answer = server.post("/v2/models/typed/infer", head + block, headers=headers)
    data: list[str] = answer.json()["outputs"][0]["data"]
    return data


def test_a_column_without_a_content_type_is_of_one_type_by_its_form(server: Server) -> None:
    for blobs in BLOBS, [b"abc", b"abc"]:
        assert by_grpc(server, blobs) == [b"bytes", b"bytes"]
        assert by_binary(server, blobs) == ["bytes", "bytes"]
    answer = server.infer(
        "typed", [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]
    )
    assert set(answer.json()["outputs"][0]["data"]) <= {"str", "str_"}
    assert {text.rstrip(b"_") for text in by_grpc(server, [b"a", b"b"], "str")} == {b"str"}


@pytest.mark.parametrize("result", ENCODED)
def test_numbers_are_sent_as_the_model_gave_them(server: Server, result: str) -> None:
    answer = server.infer(
        "typed", [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [result]}]
    )
    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["parameters"]["content_type"], output["data"]) == ENCODED[
        result
    ]
    assert by_grpc(server, [result.encode()], "str") == [
        text.encode() for text in ENCODED[result][2]
    ]


def test_a_value_that_contains_itself_is_named(server: Server) -> None:
    answer = server.infer(
        "typed", [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["cycle"]}]
    )
    assert answer.status_code == 500
    assert "a value that contains itself or is nested too deeply" in answer.json()["error"]


def test_polars_frames_are_tables(server: Server) -> None:
    pytest.importorskip("polars")
    answer = server.infer(
        "typed", [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["polars"]}]
    )
    outputs = {
        output["name"]: (output["datatype"], output["data"]) for output in answer.json()["outputs"]
    }
    assert outputs == {
        "n": ("BYTES", ["1", "null"]),
        "t": ("BYTES", ['"a"', "null"]),
        "f": ("FP64", [0.5, None]),
        "b": ("BOOL", [True, False]),
    }
