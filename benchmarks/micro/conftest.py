"""Requests and responses of the micro-benchmarks: one wine row, and 1,000 x 100 FP32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    RequestInput,
    ResponseOutput,
    TensorData,
)

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import cases  # noqa: E402


def normalized(request: InferenceRequest) -> InferenceRequest:
    """As a request is past the data plane."""
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request


def response_of(rows: int, columns: int) -> InferenceResponse:
    values = np.random.default_rng(1).random((rows, columns))
    data = TensorData.from_array(values)
    output = ResponseOutput(name="output-1", shape=[rows, columns], datatype="FP64", data=data)
    return InferenceResponse(model_name="model", id="an-id", outputs=[output])


@pytest.fixture(params=["wine-1", "sum"])
def case(request: pytest.FixtureRequest) -> cases.Case:
    return next(case for case in cases.CASES if case.name == request.param)


@pytest.fixture(params=[(1, 1), (1000, 100)], ids=["1x1", "1000x100"])
def response(request: pytest.FixtureRequest) -> InferenceResponse:
    return response_of(*request.param)


@pytest.fixture
def large_request() -> InferenceRequest:
    values = np.random.default_rng(1).random((1000, 100)).astype(np.float32)
    data = TensorData.from_array(values)
    return normalized(
        InferenceRequest(
            inputs=[RequestInput(name="x", shape=[1000, 100], datatype="FP32", data=data)]
        )
    )
