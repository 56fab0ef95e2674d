"""Streams.

Server-side over REST, bidirectional over gRPC, in the server's process and in workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.engines import ENGINES, enter_engine
from support.repository import tensor, write_model
from support.server import Server

# One response per word of every request, with the number of the request it belongs to.
SPEAKER = """
import asyncio

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse


class Speaker(MLModel):
    ended = 0

    async def predict(self, payload):
        return self.answer([str(type(self).ended)])

    async def predict_stream(self, payloads):
        try:
            async for payload in payloads:
                (text,) = StringCodec.decode_input(payload.inputs[0])
                for word in text.split():
                    if word == "refuse":
                        raise MLServerError("not that word", 422)
                    if word == "fail":
                        raise ValueError("a bug")
                    while word == "forever":
                        yield self.answer([word])
                    if word == "think":
                        await asyncio.sleep(0.05)
                    if word == "think":
                        await asyncio.sleep(0.05)
                    yield self.answer([word])
        finally:
            type(self).ended += 1

    def answer(self, texts):
        output = StringCodec.encode_output("word", texts)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("streams")
    write_model(folder / "speaker", "Speaker", source=SPEAKER)
    write_model(folder / "echo")
    enter_engine(request)
    with Server(folder, workers=request.param, tracebacks=True) as running:
        yield running


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield GRPCInferenceServiceStub(channel)


def message(text: str, model: str = "speaker", **fields: Any) -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(bytes_contents=[text.encode()])
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="text", datatype="BYTES", shape=[1], contents=contents
    )
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], **fields)


def stream(stub: Any, messages: Iterable[pb.ModelInferRequest]) -> Any:
    return stub.ModelStreamInfer(iter(messages), timeout=30)


def words(answers: Any) -> list[str]:
    return [answer.outputs[0].contents.bytes_contents[0].decode() for answer in answers]


def events(server: Server, text: str, model: str = "speaker") -> tuple[int, list[Any]]:
    body = {"inputs": [tensor("text", [text], "BYTES")]}
    with server.client.stream("POST", f"/v2/models/{model}/infer_stream", json=body) as answer:
        if answer.status_code != 200:
            return answer.status_code, [json.loads(answer.read())]
        return 200, [
            json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line
        ]


# -- REST --


def test_one_event_per_response(server: Server) -> None:
    status, texts = events(server, "one two three")
    assert status == 200
    assert [event["outputs"][0]["data"] for event in texts] == [["one"], ["two"], ["three"]]
    assert len({event["id"] for event in texts}) == 1


def test_a_stream_has_the_headers_of_its_event(server: Server) -> None:
    answer = server.post(
        "/v2/models/speaker/infer_stream",
        {"id": "7", "inputs": [tensor("text", ["one two"], "BYTES")]},
    )
    assert answer.headers["cache-control"] == "no-cache"
    texts = {
        name: answer.headers[name] for name in ("ce-id", "ce-requestid", "ce-modelid", "ce-type")
    }
    assert texts == {
        "ce-id": "7",
        "ce-requestid": "7",
        "ce-modelid": "speaker",
        "ce-type": "io.seldon.serving.inference.response",
    }


def test_a_stream_has_timing_metadata(server: Server) -> None:
    body = {"inputs": [tensor("text", ["think think"], "BYTES")]}
    timing = server.post("/v2/models/speaker/generate_stream", body).headers["server-timing"]

    assert timing.startswith('queue;dur=0.000, batch;desc="1 requests, 1 rows", model;dur=')
    assert float(timing.partition("model;dur=")[2].partition(",")[0]) >= 40


def test_statistics_of_streams(server: Server, stub: Any) -> None:
    before = statistics(server)
    assert events(server, "think think")[0] == 200
    assert words(stream(stub, [message("think"), message("think")])) == ["think"] * 2
    after = statistics(server)

    # Rows of all requests, and calls of `predict_stream`.
    assert [after[name] - before[name] for name in ("inference_count", "execution_count")] == [3, 2]
    for part, least in ("success", 160e6), ("compute_infer", 160e6), ("queue", 0):
        was, now = before["inference_stats"][part], after["inference_stats"][part]
        assert now["count"] - was["count"] == 2
        assert now["ns"] - was["ns"] >= least
    second = next(batch for batch in after["batch_stats"] if batch["batch_size"] == 2)
    assert second["compute_infer"]["ns"] >= 80e6


def statistics(server: Server) -> Any:
    return server.get("/v2/models/speaker/stats").json()["model_stats"][0]


def test_a_model_without_predict_stream_returns_one_response(server: Server) -> None:
    status, texts = events(server, "one two", "echo")
    assert status == 200
    assert [event["outputs"][0]["data"] for event in texts] == [["one two"]]


def test_no_words_no_events(server: Server) -> None:
    assert events(server, " ") == (200, [])


@pytest.mark.parametrize(
    "word, status, text", [("refuse", 422, "not that word"), ("fail", 500, "ValueError: a bug")]
)
def test_errors_before_and_after_the_first_event(
    server: Server, word: str, status: int, text: str
) -> None:
    found_status, (error,) = events(server, word)
    assert found_status == status
    assert text in error["error"]
    found_status, (first, error) = events(server, f"one {word} two")
    assert (found_status, first["outputs"][0]["data"]) == (200, ["one"])
    assert text in error["error"]


def test_an_unknown_model(server: Server) -> None:
    assert events(server, "x", "missing")[0] == 404


def test_a_disconnect_ends_the_stream(server: Server) -> None:
    def ended() -> int:
        """The number of streams that have ended in the workers."""
        return sum(int(word) for word in _ask_all(server))

    before = ended()
    body = {"inputs": [tensor("text", ["forever"], "BYTES")]}
    with server.client.stream("POST", "/v2/models/speaker/infer_stream", json=body) as answer:
        assert next(line for line in answer.iter_lines() if line)
    server.wait(lambda: ended() > before, "the stream of the caller who left had ended")


def _ask_all(server: Server) -> set[str]:
    """The responses of both workers: a few requests reach each of two."""
    answers = [server.infer("speaker", [tensor("text", ["x"], "BYTES")]).json() for _ in range(4)]
    return {answer["outputs"][0]["data"][0] for answer in answers}


# -- gRPC --


def test_bidirectional_streams(stub: Any) -> None:
    sent: list[str] = []

    def requests() -> Iterator[pb.ModelInferRequest]:
        for text in ("one two", "three", "", "four five"):
            sent.append(text)
            yield message(text)

    assert words(stream(stub, requests())) == ["one", "two", "three", "four", "five"]
    assert len(sent) == 4


def test_a_request_is_answered_before_the_next_is_sent(stub: Any) -> None:
    from queue import Queue

    requests: Queue[pb.ModelInferRequest | None] = Queue()
    answers = iter(stream(stub, iter(requests.get, None)))
    for text in ("one", "two", "three"):
        requests.put(message(text))
        assert words([next(answers)]) == [text]
    requests.put(None)
    assert words(answers) == []


def test_ids_are_the_first_requests(stub: Any) -> None:
    answers = stream(stub, [message("a b", id="first"), message("c", id="second")])
    assert [answer.id for answer in answers] == ["first"] * 3


@pytest.mark.parametrize("word, code", [("refuse", "FAILED_PRECONDITION"), ("fail", "INTERNAL")])
def test_errors_end_the_stream(stub: Any, word: str, code: str) -> None:
    answers = stream(stub, [message(f"one {word}")])
    assert words([next(answers)]) == ["one"]
    with pytest.raises(grpc.RpcError) as error:
        next(answers)
    assert error.value.code().name == code


def test_many_streams_at_once(server: Server, stub: Any) -> None:
    calls = [stream(stub, [message(f"{at} a"), message(f"{at} b")]) for at in range(20)]
    for at, call in enumerate(calls):
        assert words(call) == [str(at), "a", str(at), "b"]
