"""Wire formats: bytes to validated request, response to bytes."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import cases
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.wire import binary, json
from mlserver.wire.proto import model_infer

from .conftest import normalized


def test_json_read(benchmark: BenchmarkFixture, case: cases.Case) -> None:
    body = cases.exchange(case, "v2").body
    request = benchmark(lambda: normalized(json.read_request(body)))
    assert request.inputs


def test_json_write(benchmark: BenchmarkFixture, response: InferenceResponse) -> None:
    assert benchmark(json.write_response, response).startswith(b"{")


def test_binary_read(benchmark: BenchmarkFixture) -> None:
    case = next(case for case in cases.CASES if case.name == "sum")
    exchange = cases.exchange(case, "binary")
    header = exchange.headers["inference-header-content-length"]

    def read() -> InferenceRequest:
        return normalized(
            binary.read_request(exchange.body, binary.read_header(header, len(exchange.body)))
        )

    assert benchmark(read).inputs


def test_proto_read(benchmark: BenchmarkFixture, case: cases.Case) -> None:
    body = cases.exchange(case, "grpc").body
    request = benchmark(lambda: normalized(model_infer.read_request(body).request))
    assert request.inputs


def test_proto_write(benchmark: BenchmarkFixture, response: InferenceResponse) -> None:
    assert benchmark(model_infer.write_response, response, True)
