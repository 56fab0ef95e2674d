"""Joining requests along their rows, and splitting the response."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import cases
from mlserver.batching import batch
from mlserver.types import InferenceRequest
from mlserver.wire import json

from .conftest import normalized, response_of


@pytest.mark.parametrize("members", [2, 16, 64])
def test_join(benchmark: BenchmarkFixture, members: int) -> None:
    body = cases.exchange(cases.CASES[0], "v2").body
    requests = [normalized(json.read_request(body)) for _ in range(members)]
    assert batch.rows_of(benchmark(batch.join, requests)) == members


def test_join_large(benchmark: BenchmarkFixture, large_request: InferenceRequest) -> None:
    assert batch.rows_of(benchmark(batch.join, [large_request] * 4)) == 4000


def test_key(benchmark: BenchmarkFixture) -> None:
    request = normalized(json.read_request(cases.exchange(cases.CASES[0], "v2").body))
    assert benchmark(batch.batch_key, request)


@pytest.mark.parametrize("members", [2, 16, 64])
def test_split(benchmark: BenchmarkFixture, members: int) -> None:
    response = response_of(members, 1)
    assert len(benchmark(batch.split, response, [1] * members)) == members
