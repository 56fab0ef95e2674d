"""Unary calls of the inference service against a real server."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import InferenceRequest, RequestInput, TensorData


def fp32(
    values: list[float], model: str = "echo", raw: bool = False, **fields: Any
) -> pb.ModelInferRequest:
    tensor = RequestInput(name="x", shape=[len(values)], datatype="FP32", data=TensorData(values))
    request = ModelInferRequestConverter.from_types(
        InferenceRequest(inputs=[tensor]), model, use_raw=raw
    )
    request.MergeFrom(pb.ModelInferRequest(**fields))
    return request


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()


@pytest.mark.parametrize("raw", [False, True])
async def test_response_has_the_form_of_the_request(serving: Any, raw: bool) -> None:
    response = await serving.stub.ModelInfer(fp32([0.5, math.inf], raw=raw, id="7"))

    assert (response.model_name, response.model_version, response.id) == ("echo", "v1", "7")
    assert bool(response.raw_output_contents) is raw
    assert ModelInferResponseConverter.to_types(response).outputs[0].data == [0.5, math.inf]


async def test_missing_id_is_not_generated(serving: Any) -> None:
    call = serving.stub.ModelInfer(fp32([1.0]))

    assert (await call).id == ""
    assert "ce-id" not in dict(list(await call.trailing_metadata()))


async def test_fp16_outputs_are_raw_and_nan_is_nan(serving: Any) -> None:
    response = await serving.stub.ModelInfer(fp32([1.0], "halves"))
    half, nan = ModelInferResponseConverter.to_types(response).outputs

    assert half.data == [0.5]
    assert math.isnan(nan.data.to_array("FP32", [1])[0])


async def test_requested_outputs(serving: Any) -> None:
    requested = pb.ModelInferRequest.InferRequestedOutputTensor(name="nan")
    response = await serving.stub.ModelInfer(fp32([1.0], "halves", outputs=[requested]))

    assert [output.name for output in response.outputs] == ["nan"]
    assert await failure(serving.stub.ModelInfer(fp32([1.0], outputs=[requested]))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Invalid outputs: the model has no output 'nan'; its outputs are 'x'",
    )


async def test_request_and_response_metadata(serving: Any) -> None:
    call = serving.stub.ModelInfer(
        fp32([1.0], id="é 1"), metadata=(("show", "yes"), ("some-bin", b"\xff"))
    )
    await call
    trailing = dict(list(await call.trailing_metadata()))

    assert trailing["x-seen"] == "yes"
    assert trailing["ce-source"] == "mine"
    assert trailing["ce-id"] == trailing["ce-requestid"] == "%C3%A9 1"
    assert trailing["ce-type"] == "io.seldon.serving.inference.response"
    assert re.findall(r"(\w+);", trailing["server-timing"]) == [
        "queue",
        "batch",
        "model",
        "transport",
        "codec",
    ]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compression_both_ways(serving: Any, encoding: str) -> None:
    kind = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[encoding]
    values = [0.5] * 10_000
    response = await serving.stub.ModelInfer(
        fp32(values, raw=True), compression=kind, metadata=(("accept-encoding", encoding),)
    )

    assert ModelInferResponseConverter.to_types(response).outputs[0].data == values


# -- errors --


async def test_error_codes(serving: Any) -> None:
    stub = serving.stub
    assert await failure(stub.ModelInfer(fp32([1.0], "nope"))) == (
        grpc.StatusCode.NOT_FOUND,
        "Model nope not found",
    )
    assert await failure(stub.ModelInfer(fp32([1.0], model_version="v9"))) == (
        grpc.StatusCode.NOT_FOUND,
        "Model echo with version v9 not found",
    )
    code, text = await failure(stub.ModelInfer(fp32([1.0], raw=True, raw_input_contents=[b"more"])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "one entry for each" in text
    twice = fp32([1.0])
    twice.inputs.append(twice.inputs[0])
    assert (await failure(stub.ModelInfer(twice)))[0] is grpc.StatusCode.INVALID_ARGUMENT
    code, text = await failure(stub.ModelInfer(fp32([1.0], "broken")))
    assert code is grpc.StatusCode.INTERNAL
    assert "a value error" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "status, code",
    [
        (400, "INVALID_ARGUMENT"),
        (404, "NOT_FOUND"),
        (418, "UNKNOWN"),
        (422, "FAILED_PRECONDITION"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_status_of_a_model_error_becomes_a_code(serving: Any, status: int, code: str) -> None:
    tensor = RequestInput(name="status", shape=[1], datatype="INT32", data=TensorData([status]))
    request = ModelInferRequestConverter.from_types(InferenceRequest(inputs=[tensor]), "broken")
    received, text = await failure(serving.stub.ModelInfer(request))

    assert received.name == code
    assert "as asked ☃" in text
    assert len(text) < 3000


async def test_response_with_a_wrong_shape_is_internal(serving: Any) -> None:
    tensor = RequestInput(name="shape", shape=[1], datatype="INT32", data=TensorData([1]))
    request = ModelInferRequestConverter.from_types(InferenceRequest(inputs=[tensor]), "broken")

    assert (await failure(serving.stub.ModelInfer(request)))[0] is grpc.StatusCode.INTERNAL


async def test_message_limit(start: Any) -> None:
    serving = await start(max_body_bytes=100_000)
    await serving.stub.ModelInfer(fp32([0.0] * 20_000, raw=True))
    too_large = fp32([0.0] * 30_000, raw=True)

    assert (await failure(serving.stub.ModelInfer(too_large)))[
        0
    ] is grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = serving.stub.ModelInfer(too_large, compression=grpc.Compression.Gzip)
    assert (await failure(bomb))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_grpc_max_message_length_has_precedence(start: Any) -> None:
    serving = await start(max_body_bytes=100_000, grpc_max_message_length=1000)

    assert (await failure(serving.stub.ModelInfer(fp32([0.0] * 300, raw=True))))[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )


# -- time --


async def wait_for(event: Any) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def test_cancellation_stops_the_model(serving: Any, stuck: Any) -> None:
    call = serving.stub.ModelInfer(fp32([1.0], "stuck"))
    sent = asyncio.ensure_future(call)
    await wait_for(stuck.entered)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sent
    await wait_for(stuck.left)


async def test_deadlines_reach_the_model(serving: Any, stuck: Any) -> None:
    code, _ = await failure(serving.stub.ModelInfer(fp32([1.0], "stuck"), timeout=0.2))

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await wait_for(stuck.left)


async def test_the_timeout_parameter(serving: Any) -> None:
    soon = {"timeout": pb.InferParameter(int64_param=100_000)}
    code, text = await failure(serving.stub.ModelInfer(fp32([1.0], "stuck", parameters=soon)))

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert text == "Request for model stuck timed out"
