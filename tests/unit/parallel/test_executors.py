"""The contract of both executors: a thread of this process, and worker processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlserver.errors import DeadlineExceeded, MLServerError
from mlserver.parallel.executor import Executor, HTTPRequest, LoadedModel
from mlserver.parallel.in_process import InProcessExecutor
from mlserver.parallel.pool_manager import PoolExecutor
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceRequest

from .conftest import model_settings, request

LIMIT = 60.0
KINDS = ("inline", "pool")


@pytest.fixture
async def executor(kind: str) -> AsyncIterator[Executor]:
    created: Executor = (
        InProcessExecutor() if kind == "inline" else PoolExecutor(Settings(parallel_workers=2))
    )
    await created.start()
    yield created
    await created.stop(5.0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ask(model: LoadedModel, text: str, context: RequestContext | None = None) -> str:
    async with asyncio.timeout(LIMIT):
        response = await model.infer(request(text), context or RequestContext())
    return str(response.outputs[0].data.root[0])


# -- loading --


async def test_info_of_a_loaded_model(executor: Executor) -> None:
    model = await executor.load(model_settings())

    assert (model.info.ready, model.info.row_wise, model.info.streams) == (True, False, True)
    assert [(route.path, route.method, route.handler) for route in model.info.routes] == [
        ("/twice", "POST", "twice")
    ]
    assert model.info.metadata.name == "m"
    assert model.info.load_seconds > 0
    assert model.available
    assert model.capacity >= 1
    assert (await executor.load(model_settings("RowWise"))).info.row_wise


async def test_a_load_that_returns_false(executor: Executor) -> None:
    assert not (await executor.load(model_settings(load="refuse"))).info.ready


async def test_a_load_that_raises(executor: Executor) -> None:
    with pytest.raises(
        MLServerError, match="Model m failed to load: ValueError: no weights"
    ) as error:
        await executor.load(model_settings(load="raise"))
    assert error.value.status_code == 500

    assert await ask(await executor.load(model_settings()), "echo:a") == "a"


async def test_two_of_one_name_side_by_side(executor: Executor) -> None:
    old, new = await executor.load(model_settings()), await executor.load(model_settings())
    assert await old.unload()

    assert await ask(new, "echo:a") == "a"
    with pytest.raises(MLServerError):
        await ask(old, "echo:a")


# -- inference --


async def test_answers(executor: Executor) -> None:
    model = await executor.load(model_settings())
    context = RequestContext()

    assert await ask(model, "echo:é", context) == "é"
    assert context.timings.model_ns > 0


async def test_many_at_once(executor: Executor) -> None:
    model = await executor.load(model_settings())

    answers = await asyncio.gather(*(ask(model, f"echo:{number}") for number in range(100)))
    assert answers == [str(number) for number in range(100)]


async def test_what_a_model_raises(executor: Executor) -> None:
    model = await executor.load(model_settings())
    with pytest.raises(
        MLServerError, match="Model m failed to predict: ValueError: not today"
    ) as error:
        await ask(model, "raise:not today")

    assert (error.value.status_code, error.value.code) == (500, "INTERNAL")


async def test_an_expired_request_is_not_run(executor: Executor) -> None:
    model = await executor.load(model_settings())
    with pytest.raises((DeadlineExceeded, MLServerError)) as error:
        await ask(model, "echo:a", RequestContext(deadline=time.monotonic() - 1))

    assert error.value.code == "DEADLINE_EXCEEDED"


async def test_a_caller_may_be_cancelled(executor: Executor) -> None:
    model = await executor.load(model_settings())
    waiting = asyncio.ensure_future(ask(model, "wait:"))
    assert await ask(model, "echo:a") == "a"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert await ask(model, "echo:b") == "b"


async def test_custom_routes(executor: Executor) -> None:
    model = await executor.load(model_settings())
    answer = await model.route(HTTPRequest("POST", "/twice", b"value=21"), RequestContext())
    assert (answer.status, answer.body) == (200, b"42")
    assert dict(answer.headers)[b"content-type"] == b"application/json"

    wrong = await model.route(HTTPRequest("POST", "/twice", b"value=x"), RequestContext())
    assert wrong.status == 422
    assert b"Invalid query.value" in wrong.body


# -- streams --


async def texts(*items: str) -> AsyncIterator[InferenceRequest]:
    for item in items:
        yield request(item)


async def consume(stream: AsyncIterator[Any]) -> list[str]:
    async with asyncio.timeout(LIMIT):
        return [str(answer.outputs[0].data.root[0]) async for answer in stream]


async def test_streams(executor: Executor) -> None:
    model = await executor.load(model_settings())

    assert await consume(model.stream(texts("a", "b"), RequestContext())) == ["a", "a", "b", "b"]
    assert await consume(model.stream(texts(), RequestContext())) == []


async def test_streams_that_fail(executor: Executor) -> None:
    model = await executor.load(model_settings())
    with pytest.raises(MLServerError, match="ValueError: bad item"):
        await consume(model.stream(texts("a", "raise"), RequestContext()))


async def test_requests_that_fail_end_a_stream(executor: Executor) -> None:
    model = await executor.load(model_settings())

    async def failing() -> AsyncIterator[InferenceRequest]:
        yield request("a")
        raise MLServerError("that was no request", 400)

    with pytest.raises(MLServerError, match="that was no request"):
        await consume(model.stream(failing(), RequestContext()))


async def test_a_stream_may_be_closed(executor: Executor) -> None:
    model = await executor.load(model_settings())
    pulled = 0

    async def endless() -> AsyncIterator[InferenceRequest]:
        nonlocal pulled
        while True:
            pulled += 1
            yield request("a")

    stream = model.stream(endless(), RequestContext())
    async with asyncio.timeout(LIMIT):
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
    assert pulled <= 2  # they are pulled one by one as the model awaits them, never ahead
    assert await ask(model, "echo:b") == "b"


async def test_a_stream_may_be_closed_while_the_model_computes(executor: Executor) -> None:
    """The caller is cancelled during a pull, as if its client had disconnected; no other error."""
    model = await executor.load(model_settings())
    stream = model.stream(texts("linger"), RequestContext())
    async with asyncio.timeout(LIMIT):
        await anext(stream)
        consumer = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # the pull has started ...
        assert await ask(model, "echo:b") == "b"  # ... and what came after it is done
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        while await ask(model, "left:") != "1":  # the model's own clean-up runs to its end
            pass


# -- unloading --


async def test_an_unloaded_model_is_gone(executor: Executor) -> None:
    model = await executor.load(model_settings())
    assert await model.unload()
    with pytest.raises(MLServerError):
        await ask(model, "echo:a")


# -- inline only --


async def test_inline_runs_in_a_thread_of_its_own() -> None:
    executor = InProcessExecutor()
    await executor.start()
    model = await executor.load(model_settings())
    blocked = asyncio.ensure_future(ask(model, "block:0.05"))
    await asyncio.sleep(0)  # this loop goes on

    assert await ask(model, "thread:") == "mlserver-models" != threading.current_thread().name
    await blocked
    await executor.stop(5.0)


async def test_inline_may_stop_without_a_start_and_twice() -> None:
    await InProcessExecutor().stop(1.0)
    executor = InProcessExecutor()
    await executor.start()
    await executor.stop(1.0)
    await executor.stop(1.0)


async def test_inline_stops_with_work_under_way() -> None:
    executor = InProcessExecutor()
    await executor.start()
    model = await executor.load(model_settings())
    waiting = asyncio.ensure_future(ask(model, "wait:"))
    assert await ask(model, "echo:a") == "a"
    await executor.stop(5.0)

    async with asyncio.timeout(LIMIT):
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(result, (MLServerError, asyncio.CancelledError))
