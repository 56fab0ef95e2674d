"""Every example of a custom runtime, unchanged, in the server's process and in two workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, RequestInput, TensorData
from support.engines import RAY_ENGINE
from support.repository import tensor
from support.server import RAY, Serve, Server
from support.slow import slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "custom-runtimes"
WITH_SETTINGS = "custom-repository"  # has a settings.json, so it needs a server of its own


@pytest.fixture(scope="module", params=[0, 2, RAY_ENGINE])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The models of all examples but one."""
    folder = tmp_path_factory.mktemp("examples") / "models"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns(WITH_SETTINGS))
    if request.param == RAY:
        request.getfixturevalue("ray_cluster")
    with Server(folder, workers=request.param) as running:
        yield running


def outputs(server: Server, model: str, *inputs: dict[str, Any]) -> list[dict[str, Any]]:
    answer = server.infer(model, list(inputs))
    assert answer.status_code == 200, answer.text
    outputs: list[dict[str, Any]] = answer.json()["outputs"]
    return outputs


def test_plain(server: Server) -> None:
    [total] = outputs(server, "linear", tensor("rows", [1.0, 2.0, 3.0, 4.0], "FP64", [2, 2]))
    assert total["name"] == "total"
    assert total["shape"] == [2, 1]
    assert total["data"] == [0.5, 2.5]
    metadata = server.get("/v2/models/linear/versions/v1").json()
    assert metadata["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}]


def test_decode_args(server: Server) -> None:
    inputs = [tensor("names", ["Ada", "Bo"], "BYTES"), tensor("times", [1, 2], "INT64")]
    texts, lengths = outputs(server, "greeter", *inputs)
    assert texts["data"] == ["Hello, Ada!", "Hello, Bo! Hello, Bo!"]
    assert lengths["data"] == [11, 21]
    texts, _ = outputs(server, "greeter", *inputs, tensor("greeting", ["Bonjour", "Hej"], "BYTES"))
    assert texts["data"] == ["Bonjour, Ada!", "Hej, Bo! Hej, Bo!"]


def test_streaming(server: Server) -> None:
    body = {"inputs": [tensor("text", ["one two three"], "BYTES")]}
    with server.client.stream("POST", "/v2/models/speaker/infer_stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert [event["outputs"][0]["data"] for event in events] == [["one"], ["two"], ["three"]]
    [words] = outputs(server, "speaker", tensor("text", ["one two three"], "BYTES"))
    assert words["data"] == ["one", "two", "three"]


def test_streaming_over_grpc(server: Server) -> None:
    """Several texts are sent over one stream, which returns the words of all."""
    text = {"name": "text", "datatype": "BYTES", "shape": [1]}
    requests = [
        ModelInferRequestConverter.from_types(
            InferenceRequest(
                id="stream", inputs=[RequestInput(**text, data=TensorData([sentence]))]
            ),
            model_name="speaker",
        )
        for sentence in ("one two", "three")
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answers = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests), timeout=30)
        words = [bytes(answer.outputs[0].contents.bytes_contents[0]) for answer in answers]
    assert words == [b"one", b"two", b"three"]


def test_custom_codec(server: Server) -> None:
    [opposite] = outputs(server, "inverter", tensor("color", ["#ff8800", "#000000"], "BYTES"))
    assert opposite["data"] == ["#0077ff", "#ffffff"]
    assert opposite["parameters"] == {"content_type": "color"}
    refused = server.infer("inverter", [tensor("color", ["orange"], "BYTES")])
    assert refused.status_code == 400
    assert "#ff8800" in refused.json()["error"]


def test_custom_handler(server: Server) -> None:
    assert server.post("/review", {"text": "I love it"}).json() == {"label": "good"}
    assert server.post("/review?loud=true", {"text": "awful"}).json() == {"label": "BAD"}
    assert server.post("/v2/models/sentiment/review", {"text": "a chair"}).json() == {
        "label": "neutral"
    }
    assert server.get("/words/bad").json() == ["awful", "bad", "hate"]
    empty = server.post("/review", {"text": " "})
    assert (empty.status_code, empty.json()) == (422, {"error": "A review needs at least one word"})
    assert server.post("/review", {"txt": "x"}).status_code == 422


def test_custom_metrics(server: Server) -> None:
    for values in ([1.0, 2.0, 3.0], [4.0, 6.0]):
        outputs(server, "measured", tensor("values", values))

    def scraped(line: str) -> bool:
        return line in server.client.get(f"{server.metrics_url}/metrics").text

    labels = '{model_name="measured",model_version="3"}'
    # Workers report asynchronously, so the count may arrive after the response.
    server.wait(lambda: scraped(f"request_mean_sum{labels} 7.0"), "both requests were counted")
    server.wait(lambda: scraped(f"request_rows_count{labels} 2.0"), "both requests were counted")


@pytest.mark.parametrize("workers", [slow(0), 2, RAY_ENGINE])
def test_custom_repository(serve: Serve, workers: int, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / WITH_SETTINGS, tmp_path / "models")
    server = serve(folder, workers=workers)
    [scaled] = outputs(server, "double", tensor("x", [2.0]))
    assert scaled["data"] == [5.0]
    old = server.post("/v2/models/double/versions/1/infer", {"inputs": [tensor("x", [2.0])]}).json()
    assert old["outputs"][0]["data"] == [4.0]

    catalog = json.loads((folder / "catalog.json").read_text())
    (folder / "catalog.json").write_text(
        json.dumps([*catalog, {"name": "triple", "version": "1", "factor": 3.0}])
    )
    assert server.post("/v2/repository/models/triple/load").status_code == 200
    [scaled] = outputs(server, "triple", tensor("x", [2.0]))
    assert scaled["data"] == [6.0]
    assert server.post("/v2/repository/models/nothing/load").status_code == 404


@pytest.mark.parametrize(
    "folder", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
)
def test_every_example_is_tested(folder: str) -> None:
    assert f"test_{folder.replace('-', '_')}" in globals()
