"""The runner: the only caller of a model's own code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest

from mlserver import MLModel, ModelSettings
from mlserver.codecs import NumpyCodec, decode_args
from mlserver.custom_routes import Route
from mlserver.errors import (
    DeadlineExceeded,
    InferenceError,
    MLServerError,
    ModelFailed,
    ModelLoadError,
    ModelNotFound,
)
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.pipeline import RequestContext
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput

REQUEST = InferenceRequest(
    inputs=[RequestInput(name="x", shape=[2], datatype="FP64", data=[1.0, 2.0])]
)


class Waits(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.sleep(0)
        return _twice(self, payload)


class Plain(MLModel):
    def predict(self, payload: InferenceRequest) -> InferenceResponse:  # type: ignore[override]
        return _twice(self, payload)


class PlainArguments(MLModel):
    @decode_args
    def predict(self, x: np.ndarray) -> np.ndarray:
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
    runner = ModelRunner()
    await runner.load("key", ModelSettings(name="m", implementation=cls))
    return await runner.infer("key", REQUEST, RequestContext(deadline=deadline))


@pytest.mark.parametrize("cls", [Waits, Plain, PlainArguments, PlainFuture])
async def test_predict_may_be_plain_or_awaitable(cls: type[MLModel]) -> None:
    (output,) = (await predict(cls)).outputs
    assert NumpyCodec.decode_output(output).ravel().tolist() == [2.0, 4.0]


async def test_exceptions_of_a_plain_function_are_reported() -> None:
    with pytest.raises(ModelFailed, match="ValueError: no"):
        await predict(PlainFailure)


class ReturnsArray(MLModel):
    async def predict(self, payload: InferenceRequest) -> np.ndarray:  # type: ignore[override]
        return np.zeros(1)


class ReturnsCoroutine(MLModel):
    async def predict(self, payload: InferenceRequest) -> object:  # type: ignore[override]
        return Waits(self.settings).predict(payload)


class Yields(MLModel):
    async def predict(self, payload: InferenceRequest) -> AsyncIterator[int]:  # type: ignore[override]
        yield 1


@pytest.mark.parametrize(
    "cls, text",
    [
        (Nothing, "received None: predict must return its response"),
        (ReturnsArray, "received ndarray: encode the result with a codec, or decorate"),
        (ReturnsCoroutine, "received a coroutine: an 'await' is missing"),
        (Yields, "received a generator: predict must use 'return'"),
    ],
)
async def test_what_is_not_a_response_is_named(cls: type[MLModel], text: str) -> None:
    with pytest.raises(InferenceError, match=f"returned no predictions .*{text}") as caught:
        await predict(cls)
    assert caught.value.status_code == 500


class StreamIsCoroutine(MLModel):
    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> int:  # type: ignore[override]
        return 1


async def test_a_stream_that_is_no_generator_is_named() -> None:
    runner = ModelRunner()
    await runner.load("m", ModelSettings(name="m", implementation=StreamIsCoroutine))
    with pytest.raises(ModelFailed, match="predict_stream returned coroutine.*with 'yield'"):
        await anext(aiter(runner.stream("m", _requests(), RequestContext())))


async def _requests() -> AsyncIterator[InferenceRequest]:
    yield REQUEST


class LeavesOutSuper(MLModel):
    def __init__(self, settings: ModelSettings) -> None:
        self.weights = 1


class PlainLoad(MLModel):
    def load(self) -> bool:  # type: ignore[override]
        return True


class LoadReturnsNothing(MLModel):
    async def load(self) -> None:  # type: ignore[override]
        self.weights = 1


class NoRuntime:
    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings


@pytest.mark.parametrize(
    "cls, text",
    [
        (LeavesOutSuper, r"its __init__ must call super\(\).__init__\(settings\)"),
        (PlainLoad, "load must be a coroutine .* and returned bool"),
        (LoadReturnsNothing, "load returned None, expected True"),
        (NoRuntime, "expected a subclass of mlserver.MLModel, received NoRuntime"),
    ],
)
async def test_a_load_that_cannot_work_names_the_change(cls: type[MLModel], text: str) -> None:
    with pytest.raises(ModelLoadError, match=f"^Model m: .*{text}"):
        await ModelRunner().load("m", ModelSettings(name="m", implementation=cls))


async def test_an_implementation_that_is_a_module() -> None:
    settings = ModelSettings(name="m", implementation="mlserver.types")
    with pytest.raises(ModelLoadError, match="expected a subclass of .*MLModel, received a module"):
        await ModelRunner().load("m", settings)


async def test_an_expired_request_is_not_run() -> None:
    with pytest.raises(DeadlineExceeded):
        await predict(Waits, deadline=0.0)


# -- what a model may do instead of answering --


class Misbehaves(MLModel):
    """Does what `parameters.extra` says."""

    async def load(self) -> bool:
        assert self.settings.parameters is not None
        self._how = (self.settings.parameters.extra or {})["how"]
        if self._how == "load":
            sys.exit(3)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if self._how == "exit":
            sys.exit(3)
        if self._how == "cancelled":
            raise asyncio.CancelledError
        if self._how == "refuses":
            raise MLServerError("too warm", 418)
        if self._how == "wrong":
            output = ResponseOutput(name="y", shape=[3], datatype="FP64", data=[1.0])
            return InferenceResponse(model_name="m", outputs=[output])
        await asyncio.Event().wait()
        raise AssertionError

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            yield await self.predict(payload)

    async def unload(self) -> bool:
        raise ValueError("no")


class DeclaresNonsense(MLModel):
    def routes(self) -> list[Route]:
        raise ValueError("no routes")


async def misbehaving(how: str) -> ModelRunner:
    runner = ModelRunner()
    parameters = ModelParameters(extra={"how": how})
    await runner.load(
        "m#1", ModelSettings(name="m", implementation=Misbehaves, parameters=parameters)
    )
    return runner


async def first_of_stream(runner: ModelRunner) -> InferenceResponse | None:
    async def requests() -> AsyncIterator[InferenceRequest]:
        yield REQUEST

    return await anext(runner.stream("m#1", requests(), RequestContext()), None)


@pytest.mark.parametrize(
    "how, error, status, text",
    [
        ("exit", ModelFailed, 500, "Model m failed to predict: SystemExit: 3"),
        ("cancelled", ModelFailed, 500, "Model m failed to predict: CancelledError"),
        ("refuses", MLServerError, 418, "too warm"),
        (
            "wrong",
            ModelFailed,
            500,
            "Model m returned invalid output 'y': expected 3 elements",
        ),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_misbehaviour(
    how: str, error: type[MLServerError], status: int, text: str, streamed: bool
) -> None:
    runner = await misbehaving(how)
    with pytest.raises(error, match=text) as raised:
        await (
            first_of_stream(runner) if streamed else runner.infer("m#1", REQUEST, RequestContext())
        )
    assert raised.value.status_code == status


async def test_a_request_can_be_stopped() -> None:
    runner = await misbehaving("waits")
    task = asyncio.ensure_future(runner.infer("m#1", REQUEST, RequestContext()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_exit_in_load() -> None:
    with pytest.raises(ModelFailed, match="Model m failed to load: SystemExit: 3"):
        await misbehaving("load")


async def test_a_model_that_failed_to_load_is_not_registered() -> None:
    runner = ModelRunner()
    with pytest.raises(ModelFailed, match="ValueError: no routes"):
        await runner.load("m#1", ModelSettings(name="m", implementation=DeclaresNonsense))
    with pytest.raises(ModelNotFound, match="Model m not found"):
        await runner.infer("m#1", REQUEST, RequestContext())


async def test_a_failing_unload_removes_the_model() -> None:
    runner = await misbehaving("waits")

    with pytest.raises(
        ModelFailed, match=r"Model m was unloaded, but its unload\(\) failed: ValueError: no"
    ):
        await runner.unload("m#1")
    with pytest.raises(ModelNotFound):
        await runner.infer("m#1", REQUEST, RequestContext())
    assert await runner.unload("m#1")


@pytest.mark.parametrize(
    "path, text",
    [
        ("no_such_module.Model", "no_such_module"),
        ("mlserver.Nothing", "Nothing"),
    ],
)
async def test_implementations_that_are_not_there(path: str, text: str) -> None:
    with pytest.raises(MLServerError, match=text):
        await ModelRunner().load("m#1", ModelSettings(name="m", implementation=path))
