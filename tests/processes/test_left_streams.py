"""Clients that disconnect in the middle of a stream.

The server cancels it silently and still exits in time.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, RequestInput, TensorData
from support.repository import tensor
from support.server import Serve
from support.slow import slow

SPEAKER = Path(__file__).resolve().parents[2] / "examples" / "custom-runtimes" / "streaming"
TEXT = "one two three four five six seven eight"
LEAVERS = 25

# The end of the fixture `serve` makes the assertions: exit in time with code 0, no child process
# left,
# no traceback in the log.
workers = pytest.mark.parametrize("workers", [slow(0), 2])


@workers
def test_a_disconnect_over_grpc(serve: Serve, workers: int) -> None:
    server = serve(SPEAKER, workers=workers)
    tensor_in = RequestInput(name="text", datatype="BYTES", shape=[1], data=TensorData([TEXT]))
    message = ModelInferRequestConverter.from_types(
        InferenceRequest(inputs=[tensor_in]), model_name="speaker"
    )
    for _ in range(LEAVERS):
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            next(
                GRPCInferenceServiceStub(channel).ModelStreamInfer(
                    iter([message, message]), timeout=30
                )
            )
    assert server.infer("speaker", [tensor("text", ["still here"], "BYTES")]).status_code == 200


@workers
def test_a_disconnect_over_rest(serve: Serve, workers: int) -> None:
    server = serve(SPEAKER, workers=workers)
    body = {"inputs": [tensor("text", [TEXT], "BYTES")]}
    for _ in range(LEAVERS):
        with server.client.stream("POST", "/v2/models/speaker/infer_stream", json=body) as answer:
            next(answer.iter_lines())
    assert server.infer("speaker", [tensor("text", ["still here"], "BYTES")]).status_code == 200
