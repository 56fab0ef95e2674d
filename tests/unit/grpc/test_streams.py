"""ModelStreamInfer, in MLServer's form and in Triton's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import server as grpc_server
from mlserver.wire.pb import dataplane_pb2


def text(words: str, model: str = "words", **fields: Any) -> pb.ModelInferRequest:
    tensor = {
        "name": "t",
        "datatype": "BYTES",
        "shape": [1],
        "contents": {"bytes_contents": [words.encode()]},
    }
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], **fields)


def word(response: pb.ModelInferResponse) -> str:
    if response.raw_output_contents:
        return str(response.raw_output_contents[0][4:].decode())
    return str(response.outputs[0].contents.bytes_contents[0].decode())


async def read_responses(
    serving: Any, *requests: pb.ModelInferRequest, **options: Any
) -> list[pb.ModelInferResponse]:
    return [
        response
        async for response in serving.stub.ModelStreamInfer(iter(requests), timeout=20, **options)
    ]


# -- MLServer's form --


async def test_streaming_model_receives_all_requests_in_one_stream(serving: Any) -> None:
    responses = await read_responses(serving, text("a b", id="first"), text("c", id="second"))

    assert [word(response) for response in responses] == ["1:a", "1:b", "2:c"]
    assert {response.id for response in responses} == {"first"}


async def test_model_without_streaming_receives_single_requests(serving: Any) -> None:
    responses = await read_responses(serving, *(text(word, "echo", id=word) for word in "abc"))

    assert [(response.id, word(response)) for response in responses] == [
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
    ]


async def test_requests_for_several_models_in_one_stream(serving: Any) -> None:
    requests = [
        text("a", "words"),
        text("x", "echo"),
        text("y", "other"),
        text("b", "words"),
        text("z", "echo"),
    ]
    responses = await read_responses(serving, *requests)

    words_by_model: dict[str, list[str]] = {}
    for response in responses:
        words_by_model.setdefault(response.model_name, []).append(word(response))
    assert words_by_model == {"words": ["1:a", "2:b"], "echo": ["x", "z"], "other": ["y"]}


@pytest.mark.parametrize("metadata", [(), (("mlserver-stream-form", "triton"),)])
async def test_an_empty_stream(serving: Any, metadata: Any) -> None:
    call = serving.stub.ModelStreamInfer(iter(()), timeout=20, metadata=metadata)

    assert [response async for response in call] == []
    assert await call.code() is grpc.StatusCode.OK


async def test_responses_before_the_end_of_the_requests(serving: Any) -> None:
    call = serving.stub.ModelStreamInfer(timeout=20)
    for letter in "ab":
        await call.write(text(letter, "echo"))
        assert word(await call.read()) == letter
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF


async def test_raw_requests_get_raw_responses(serving: Any) -> None:
    tensor = {"name": "t", "datatype": "BYTES", "shape": [1]}
    request = pb.ModelInferRequest(
        model_name="words", inputs=[tensor], raw_input_contents=[b"\x01\x00\x00\x00a"]
    )
    (response,) = await read_responses(serving, request)

    assert list(response.raw_output_contents) == [b"\x03\x00\x00\x001:a"]


@pytest.mark.parametrize(
    "request_, code",
    [
        (text("a", "nope"), grpc.StatusCode.NOT_FOUND),
        (
            pb.ModelInferRequest(model_name="words", inputs=[{"name": "x"}]),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            pb.ModelInferRequest(model_name="echo", inputs=[{"name": "x"}]),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (text("ok fail"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_error_becomes_the_status_of_the_stream(
    serving: Any, request_: pb.ModelInferRequest, code: Any
) -> None:
    call = serving.stub.ModelStreamInfer(iter([request_]), timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        _ = [response async for response in call]
    assert error.value.code() is code


async def test_headers_are_trailing_metadata(serving: Any) -> None:
    call = serving.stub.ModelStreamInfer(iter([text("a b", id="7")]), timeout=20)
    _ = [response async for response in call]
    trailing = dict(list(await call.trailing_metadata()))

    assert trailing["ce-id"] == "7"
    assert trailing["ce-modelid"] == "words"


async def test_disconnect_stops_the_model(serving: Any, stuck: Any) -> None:
    call = serving.stub.ModelStreamInfer(timeout=20)
    await call.write(text("a", "stuck"))
    assert await asyncio.to_thread(stuck.entered.wait, 10)
    call.cancel()

    assert await asyncio.to_thread(stuck.left.wait, 10)


# -- Triton's form --

FINAL = {"triton_enable_empty_final_response": pb.InferParameter(bool_param=True)}


async def in_triton_form(
    serving: Any, *requests: pb.ModelInferRequest, **options: Any
) -> list[Any]:
    """Return the `ModelStreamInferResponse` messages of a stream."""
    call = serving.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=dataplane_pb2.ModelStreamInferResponse.FromString,
    )
    return [response async for response in call(iter(requests), timeout=20, **options)]


def final(response: Any) -> bool | None:
    parameters = response.infer_response.parameters
    return (
        parameters["triton_final_response"].bool_param
        if "triton_final_response" in parameters
        else None
    )


async def test_each_request_is_served_on_its_own(serving: Any) -> None:
    responses = await in_triton_form(
        serving, text("a b", id="1", parameters=FINAL), text("c", id="2", parameters=FINAL)
    )
    seen = [(response.infer_response.id, final(response)) for response in responses]

    assert seen == [("1", False), ("1", False), ("1", True), ("2", False), ("2", True)]
    assert [word(r.infer_response) for r in responses if r.infer_response.outputs] == [
        "1:a",
        "1:b",
        "1:c",
    ]


async def test_response_of_a_model_without_streaming_is_final(serving: Any) -> None:
    (response,) = await in_triton_form(serving, text("a", "echo", parameters=FINAL))

    assert final(response) is True
    assert word(response.infer_response) == "a"


async def test_form_selected_by_metadata(serving: Any) -> None:
    requests = [text(str(number), "echo", id=str(number)) for number in range(200)]
    responses = await in_triton_form(
        serving, *requests, metadata=(("mlserver-stream-form", "triton"),)
    )

    assert [response.infer_response.id for response in responses] == [
        request.id for request in requests
    ]
    assert {final(response) for response in responses} == {None}


async def test_errors_do_not_end_the_stream(serving: Any) -> None:
    requests = [
        text("a", "nope", id="1", parameters=FINAL),
        text("fail", id="2"),
        text("b", "echo", id="3"),
    ]
    responses = await in_triton_form(serving, *requests)

    assert [(r.infer_response.id, r.error_message) for r in responses[::2]] == [
        ("1", "Model nope not found"),
        ("3", ""),
    ]
    assert "a word failed" in responses[1].error_message


async def test_slow_request_keeps_the_order_and_does_not_block_later_ones(
    serving: Any, stuck: Any
) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        soon = {"timeout": pb.InferParameter(int64_param=300_000), **FINAL}
        yield text("a", "stuck", id="1", parameters=soon)
        assert await asyncio.to_thread(stuck.entered.wait, 10)
        yield text("b", "echo", id="2")

    call = serving.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=dataplane_pb2.ModelStreamInferResponse.FromString,
    )
    responses = [response async for response in call(requests(), timeout=20)]

    assert [r.infer_response.id for r in responses] == ["1", "2"]
    assert responses[0].error_message == "Request for model stuck timed out"


# -- streams at a drain --


def drain(serving: Any) -> asyncio.Task[None]:
    async def drained() -> None:
        async with asyncio.timeout(60):
            await serving.server.drain()

    return asyncio.create_task(drained())


async def assert_ended_by_drain(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "The server is stopping" in str(error.value.details())


TRITON_FORM = (("mlserver-stream-form", "triton"),)


@pytest.mark.parametrize("model, metadata", [("echo", ()), ("words", ()), ("words", TRITON_FORM)])
async def test_a_drain_ends_streams_without_a_request(
    serving: Any, metadata: Any, model: str
) -> None:
    """Those that have had requests, and those that have not; each client reads why."""
    used = serving.stub.ModelStreamInfer(metadata=metadata)
    await used.write(text("a", model))
    assert await used.read() is not grpc.aio.EOF
    unused = serving.stub.ModelStreamInfer(metadata=metadata)
    await unused.wait_for_connection()

    draining = drain(serving)
    await assert_ended_by_drain(used)
    await assert_ended_by_drain(unused)
    await draining
    assert not serving.pipeline.metrics.errors.export()["errors"]


@pytest.mark.parametrize("metadata", [(), TRITON_FORM])
async def test_a_drain_answers_all_requests_that_were_sent(
    serving: Any, gated: Any, monkeypatch: pytest.MonkeyPatch, metadata: Any
) -> None:
    """Also those that the server had not read when the drain began."""
    monkeypatch.setattr(grpc_server, "STREAM_SECONDS", 0.0)
    ended = serving.stub.ModelStreamInfer(metadata=metadata)
    opened = serving.stub.ModelStreamInfer(metadata=metadata)
    for call in (ended, opened):
        for _ in range(10):
            await call.write(text("a", "gated"))
    await ended.done_writing()
    assert await asyncio.to_thread(gated.entered.wait, 30)

    draining = drain(serving)
    gated.gate.set()
    assert len([response async for response in ended]) == 10
    for _ in range(10):
        assert await opened.read() is not grpc.aio.EOF
    await assert_ended_by_drain(opened)
    await draining


async def test_a_stream_may_end_by_itself_during_a_drain(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of an open stream are served for `STREAM_SECONDS`."""
    monkeypatch.setattr(grpc_server, "STREAM_SECONDS", 1e6)
    call = serving.stub.ModelStreamInfer()
    await call.write(text("a", "echo"))
    assert word(await call.read()) == "a"
    draining = drain(serving)
    await asyncio.sleep(0)  # the drain begins
    await call.write(text("b", "echo"))
    assert word(await call.read()) == "b"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    await draining
