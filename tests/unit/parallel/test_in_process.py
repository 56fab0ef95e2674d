"""Models that block in the server's process (`parallel_workers: 0`): limits, readiness, loads."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError, Unavailable
from mlserver.handlers.stream_deadline import StreamDeadline
from mlserver.parallel.in_process import InProcessExecutor
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceRequest, InferenceResponse

from .conftest import request

LIMIT = 20.0


class Gate:
    """Blocks the thread of a model until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.ends: list[str] = []

    def block(self) -> None:
        self.reached.set()
        assert self.opened.wait(LIMIT)


gate = Gate()


class Blocks(MLModel):
    """Blocks the models' loop in `predict`, and a thread in a step of `predict_stream`."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        gate.block()
        return InferenceResponse(model_name=self.name, outputs=[])

    def predict_stream(  # type: ignore[override]
        self, payloads: Iterator[InferenceRequest]
    ) -> Iterator[InferenceResponse]:
        try:
            for _ in payloads:
                yield InferenceResponse(model_name=self.name, outputs=[])
                gate.block()
                yield InferenceResponse(model_name=self.name, outputs=[])
        finally:
            gate.ends.append("stream")

    async def unload(self) -> bool:
        gate.ends.append("unload")
        return True


class BlocksInLoad(Blocks):
    async def load(self) -> bool:
        gate.block()
        return True


@pytest.fixture(autouse=True)
def closed_gate() -> Iterator[None]:
    global gate
    gate = Gate()
    yield
    gate.opened.set()


@pytest.fixture
async def executor(load_timeout: float) -> AsyncIterator[InProcessExecutor]:
    executor = InProcessExecutor(Settings(parallel_workers=0, load_timeout=load_timeout))
    await executor.start()
    yield executor
    gate.opened.set()
    await executor.stop(5.0)


@pytest.fixture
def load_timeout() -> float:
    return 60.0


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def texts(*items: str) -> AsyncIterator[InferenceRequest]:
    for item in items:
        yield request(item)


def blocking(cls: type[MLModel] = Blocks, **fields: Any) -> ModelSettings:
    return ModelSettings(name="m", implementation=cls, **fields)


async def test_the_time_limit_ends_a_stream_whose_step_blocks(
    executor: InProcessExecutor,
) -> None:
    model = await executor.load(blocking())
    stream = model.stream(texts("a", "b"), RequestContext())
    await anext(stream)
    responses = StreamDeadline(0.1).watch_responses(stream)
    async with asyncio.timeout(LIMIT / 2):
        with pytest.raises(TimeoutError):
            await anext(responses)
        await stream.aclose()  # type: ignore[attr-defined]
    assert not gate.opened.is_set()
    await until(lambda: model.abandoned_calls == 1)
    unload = asyncio.ensure_future(model.unload())
    await until(lambda: not model.available)  # it waits for the function
    gate.opened.set()
    assert await unload
    assert gate.ends == ["stream", "unload"]


async def test_a_client_may_leave_a_stream_whose_step_blocks(executor: InProcessExecutor) -> None:
    model = await executor.load(blocking())
    stream = model.stream(texts("a", "b"), RequestContext())
    await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    await until(gate.reached.is_set)
    reading.cancel()
    async with asyncio.timeout(LIMIT / 2):
        await asyncio.wait({reading})
    assert reading.cancelled()
    assert not gate.opened.is_set()


async def test_a_coroutine_that_blocks_the_loop_makes_its_models_not_ready(
    executor: InProcessExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the models, what blocks, and the end of the block, each once."""
    model = await executor.load(blocking(request_timeout=0.1))
    other = await executor.load(blocking())  # the default, 300 s
    await until(lambda: model.available)
    call = asyncio.ensure_future(model.infer(request("a"), RequestContext()))
    await until(lambda: not model.available)
    assert "the event loop of the models has not reacted for 0.1 s" in model.unavailable_reason
    assert other.available
    await until(lambda: caplog.records)
    gate.opened.set()
    await call
    await until(lambda: model.available)
    await until(lambda: len(caplog.records) == 2)
    begin, end = (record.getMessage() for record in caplog.records)
    what = "the event loop of the models is blocked by a coroutine of model 'm': 'm'"
    assert begin.startswith(f"Models not ready, because {what}\n")
    assert "gate.block()" in begin
    assert end.startswith("The event loop of the models reacts again, after ")


async def test_a_load_that_blocks_the_loop_is_named_in_the_log(
    executor: InProcessExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    await executor.load(blocking(request_timeout=0.1))
    load = asyncio.ensure_future(executor.load(blocking(BlocksInLoad)))
    await until(lambda: caplog.records)
    gate.opened.set()
    await load
    assert "blocked by the load of model 'm': 'm'" in caplog.text


@pytest.mark.parametrize("load_timeout", [0.1])
async def test_a_load_that_ends_after_its_timeout_is_undone(executor: InProcessExecutor) -> None:
    load = asyncio.ensure_future(executor.load(blocking(BlocksInLoad)))
    async with asyncio.timeout(LIMIT / 2):
        with pytest.raises(MLServerError, match="load exceeded 0.1 s"):
            await load
    gate.opened.set()
    await until(lambda: gate.ends == ["unload"])


async def test_a_load_that_ends_after_its_caller_has_left_is_undone(
    executor: InProcessExecutor,
) -> None:
    load = asyncio.ensure_future(executor.load(blocking(BlocksInLoad)))
    await until(gate.reached.is_set)
    load.cancel()
    async with asyncio.timeout(LIMIT / 2):
        await asyncio.wait({load})
    assert load.cancelled()
    gate.opened.set()
    await until(lambda: gate.ends == ["unload"])


LARGE = 10_000_000  # bytes of one request


async def test_requests_that_a_blocked_loop_has_not_started_are_released(
    executor: InProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlserver.parallel.in_process.MAX_DROPPED", 20)
    model = await executor.load(blocking())
    first = asyncio.ensure_future(model.infer(request("a"), RequestContext()))
    await until(gate.reached.is_set)
    tracemalloc.start()
    try:
        for number in range(20):
            text = "x" * LARGE
            stream: Any = model.stream(texts(text), RequestContext())
            infer = model.infer(request(text), RequestContext())
            await abandon(anext(stream) if number % 2 else infer)
            infer.close()
            await stream.aclose()
            del text, stream, infer
        assert tracemalloc.get_traced_memory()[0] < 3 * LARGE
    finally:
        tracemalloc.stop()
    with pytest.raises(Unavailable, match="event loop of the models does not react"):
        await model.infer(request("a"), RequestContext())
    gate.opened.set()
    await first
    await until(lambda: executor._dropped == 0)
    await model.infer(request("a"), RequestContext())


async def abandon(call: Any) -> None:
    task = asyncio.ensure_future(call)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
