"""The runner: the only caller of a model's own code."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mlserver import MLModel, ModelSettings
from mlserver.codecs import NumpyCodec, decode_args
from mlserver.errors import DeadlineExceeded, InferenceError, ModelFailed
from mlserver.execution.runner import Runner
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput

REQUEST = InferenceRequest(inputs=[RequestInput(name="x", shape=[2], datatype="FP64", data=[1.0, 2.0])])


class Waits(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.sleep(0)
        return _twice(self, payload)


class Plain(MLModel):
    def predict(self, payload: InferenceRequest) -> InferenceResponse:  # type: ignore[override]
        return _twice(self, payload)


class PlainArguments(MLModel):
    @decode_args
    def predict(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return 2 * x


class PlainFuture(MLModel):
    def predict(self, payload: InferenceRequest) -> asyncio.Task[InferenceResponse]:  # type: ignore[override]
        return asyncio.ensure_future(Waits(self.settings).predict(payload))


class PlainFailure(MLModel):
    def predict(self, payload: InferenceRequest) -> InferenceResponse:  # type: ignore[override]
        raise ValueError("no")


class Nothing(MLModel):
    async def predict(self, payload: InferenceRequest) -> None:  # type: ignore[override]
        return None


def _twice(model: MLModel, payload: InferenceRequest) -> InferenceResponse:
    values = NumpyCodec.decode_input(payload.inputs[0])
    output = NumpyCodec.encode_output("output-0", 2 * values)
    return InferenceResponse(model_name=model.name, outputs=[output])


async def predict(cls: type[MLModel], deadline: float | None = None) -> InferenceResponse:
    runner = Runner()
    await runner.load("key", ModelSettings(name="m", implementation=cls))
    return await runner.infer("key", REQUEST, deadline)


@pytest.mark.parametrize("cls", [Waits, Plain, PlainArguments, PlainFuture])
async def test_predict_may_be_plain_or_awaitable(cls: type[MLModel]) -> None:
    (output,) = (await predict(cls)).outputs
    assert NumpyCodec.decode_output(output).ravel().tolist() == [2.0, 4.0]


async def test_what_a_plain_function_raises_is_told() -> None:
    with pytest.raises(ModelFailed, match="ValueError: no"):
        await predict(PlainFailure)


async def test_nothing_is_no_answer() -> None:
    with pytest.raises(InferenceError, match="returned no predictions"):
        await predict(Nothing)


async def test_a_request_that_comes_too_late_is_not_run() -> None:
    with pytest.raises(DeadlineExceeded):
        await predict(Waits, deadline=0.0)
