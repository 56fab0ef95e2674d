"""The data plane: streams, custom routes and batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mlserver.batching.queue import BatchPolicy
from mlserver.errors import MLServerError, ModelNotFound
from mlserver.parallel.executor import HTTPRequest
from mlserver.pipeline import RequestContext
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from support.pipeline import Bench, request, route, tag_of


@pytest.fixture
async def bench() -> Bench:
    return Bench()


# -- outputs --


def two_outputs(payload: InferenceRequest) -> InferenceResponse:
    outputs = [
        ResponseOutput(name=name, shape=[1], datatype="INT8", data=TensorData([1])) for name in "ab"
    ]
    return InferenceResponse(model_name="m", outputs=outputs)


def fail(payload: InferenceRequest) -> InferenceResponse:
    raise ValueError("no answer")


# -- streams --


async def stream_of(*payloads: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    for payload in payloads:
        yield payload


async def test_stream_responses_have_the_first_id(bench: Bench) -> None:
    await bench.load("m", "1", streams=True)
    stream = bench.data_plane.infer_stream(
        stream_of(request(id="first"), request(id="second")), "m"
    )
    answers = [answer async for answer in stream]

    assert bench.data_plane.has_streams("m")
    assert [(answer.id, answer.model_version) for answer in answers] == [("first", "1")] * 2


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_failed_request_is_among_the_recent_errors(bench: Bench, is_stream: bool) -> None:
    (await bench.load("m", "1", streams=True)).response = fail
    context = RequestContext(operation="POST /infer")
    failing = request(id="mine")
    stream = bench.data_plane.infer_stream(stream_of(failing), "m", None, context)
    call = anext(stream) if is_stream else bench.data_plane.infer(failing, "m", None, context)
    with pytest.raises(ValueError, match="no answer"):
        await call
    (entry,) = bench.metrics.errors.export()["errors"]
    expected = {"model": "m", "version": "1", "operation": "POST /infer", "request_id": "mine"}
    assert expected.items() <= entry.items()


async def test_stream_responses_have_the_requested_outputs(bench: Bench) -> None:
    (await bench.load("m", "1", streams=True)).response = two_outputs
    stream = bench.data_plane.infer_stream(
        stream_of(request(outputs=[RequestOutput(name="b")]), request()), "m"
    )
    assert [[output.name for output in answer.outputs] async for answer in stream] == [["b"], ["b"]]

    stream = bench.data_plane.infer_stream(
        stream_of(request(outputs=[RequestOutput(name="c")])), "m"
    )
    with pytest.raises(MLServerError, match="no output 'c'"):
        await anext(stream)


async def test_streams_validate_every_request(bench: Bench) -> None:
    model = await bench.load()
    stream = bench.data_plane.infer_stream(stream_of(request(), request(name="\0")), "m")
    await anext(stream)
    with pytest.raises(MLServerError, match="control characters"):
        await anext(stream)

    assert len(model.requests) == 1


async def test_closing_a_stream(bench: Bench) -> None:
    await bench.load()
    stream = bench.data_plane.infer_stream(stream_of(request(), request()), "m")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]

    await bench.registry.drained()


async def test_streams_of_an_unknown_model(bench: Bench) -> None:
    with pytest.raises(ModelNotFound):
        await anext(bench.data_plane.infer_stream(stream_of(request()), "unknown"))


# -- custom routes --


async def test_routes(bench: Bench) -> None:
    await bench.load("m", "1", routes=(route("/one"),))
    await bench.load("m", "2", routes=(route("/two"),))
    await bench.load("n", routes=(route("/n"),))
    await bench.fail("broken")

    assert [(own.name, own.route.path) for own in bench.data_plane.routes()] == [
        ("m", "/two"),
        ("n", "/n"),
    ]
    assert [own.route.path for own in bench.data_plane.get_routes("m", "1")] == ["/one"]
    assert bench.data_plane.get_routes("unknown") == []
    answer = await bench.data_plane.route("m", "1", HTTPRequest("GET", "/one"))
    assert (answer.status, answer.body) == (201, b"/one")


# -- batches --


async def test_responses_of_a_batch_have_their_own_ids() -> None:
    bench = Bench(policy=BatchPolicy(8))
    model = await bench.load(row_wise=True)
    model.go.clear()
    calls = [
        asyncio.ensure_future(bench.ask(id=str(number), data=[float(number)]))
        for number in range(5)
    ]
    for _ in range(10):
        await asyncio.sleep(0)
    model.go.set()
    answers = await asyncio.gather(*calls)

    assert [answer.id for answer in answers] == ["0", "1", "2", "3", "4"]
    assert [answer.outputs[0].data.root for answer in answers] == [
        [float(number)] for number in range(5)
    ]
    assert {tag_of(answer) for answer in answers} == {model.tag}
    assert len(model.requests) == 2
