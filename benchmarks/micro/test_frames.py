"""RPC between processes: request to parts, parts to frames, frames to request."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import cases
from mlserver.parallel.rpc import protocol
from mlserver.types import InferenceRequest
from mlserver.wire import json

from .conftest import normalized


def parts_of(request: InferenceRequest) -> list[bytes | memoryview]:
    buffers: list[bytes | memoryview] = []
    head = protocol.pack_request(request, buffers)
    return protocol.encode(protocol.Frame(protocol.MessageType.INFER, 1, head, buffers))


def through(reader: protocol.FrameReader, data: memoryview) -> list[protocol.Frame]:
    """The frames of the bytes, read as from a socket."""
    frames: list[protocol.Frame] = []
    offset = 0
    while offset < len(data):
        buffer = reader.get_buffer()
        size = min(len(buffer), len(data) - offset)
        buffer[:size] = data[offset : offset + size]
        frames += reader.filled(size)
        offset += size
    return frames


def test_pack(benchmark: BenchmarkFixture, case: cases.Case) -> None:
    request = normalized(json.read_request(cases.exchange(case, "v2").body))
    assert benchmark(parts_of, request)


def test_unpack(benchmark: BenchmarkFixture, case: cases.Case) -> None:
    request = normalized(json.read_request(cases.exchange(case, "v2").body))
    data = memoryview(b"".join(parts_of(request)))
    reader = protocol.FrameReader()

    def unpack() -> InferenceRequest:
        (frame,) = through(reader, data)
        return protocol.unpack_request(frame.head, frame.buffers)

    assert benchmark(unpack).inputs
