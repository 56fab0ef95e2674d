"""The threads of a model: order, limit, cancellation, context, stalls."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.errors import Unavailable
from mlserver.model_threads import (
    COROUTINE_CONCURRENCY,
    PLAIN_CONCURRENCY,
    BlockingIterator,
    ModelThreads,
    get_max_concurrency,
    is_plain_function,
)
from mlserver.types import InferenceRequest, InferenceResponse

LIMIT = 30.0
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Gate:
    """A function that blocks until `open` is called; counts its calls."""

    def __init__(self) -> None:
        self.started = 0
        self._starts = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self) -> int:
        self.started += 1
        self._starts.release()
        assert self._opened.wait(LIMIT)
        return threading.get_ident()

    def open(self) -> None:
        self._opened.set()

    async def wait_started(self, count: int) -> None:
        """Return when `count` more calls have started."""
        for _ in range(count):
            assert await asyncio.to_thread(self._starts.acquire, timeout=LIMIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


async def test_calls_overlap_up_to_the_limit(gate: Gate) -> None:
    threads = ModelThreads("m", 3)
    calls = [asyncio.create_task(threads.call(gate)) for _ in range(5)]
    await gate.wait_started(3)
    await asyncio.sleep(0)
    assert (gate.started, threads.running) == (3, 3)
    gate.open()
    used = set(await asyncio.gather(*calls))
    assert gate.started == 5
    assert len(used) <= 3
    assert threading.get_ident() not in used
    assert threads.running == 0
    threads.close()


async def test_calls_run_in_the_order_of_arrival() -> None:
    threads, order = ModelThreads("m", 1), list[int]()
    await asyncio.gather(
        *(threads.call(functools.partial(order.append, number)) for number in range(50))
    )
    assert order == list(range(50))
    threads.close()


async def test_each_call_has_the_context_of_its_caller() -> None:
    threads = ModelThreads("m", 8)

    async def read(value: str) -> str:
        VARIABLE.set(value)
        return await threads.call(VARIABLE.get)

    values = [str(number) for number in range(100)]
    assert await asyncio.gather(*map(read, values)) == values
    assert await threads.call(VARIABLE.get) == "unset"
    threads.close()


async def test_a_cancelled_call_that_waits_never_runs(gate: Gate) -> None:
    threads, ran = ModelThreads("m", 1), list[int]()
    first = asyncio.create_task(threads.call(gate))
    await gate.wait_started(1)
    second = asyncio.create_task(threads.call(lambda: ran.append(2)))
    third = asyncio.create_task(threads.call(lambda: ran.append(3)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    assert second.cancelled()
    gate.open()
    await asyncio.gather(first, third)
    assert ran == [3]
    threads.close()


async def test_a_cancelled_call_keeps_its_place_until_the_function_returns(gate: Gate) -> None:
    threads, ran = ModelThreads("m", 1), list[int]()
    first = asyncio.create_task(threads.call(gate))
    await gate.wait_started(1)
    second = asyncio.create_task(threads.call(lambda: ran.append(2)))
    await asyncio.sleep(0)
    first.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not first.done()
    assert (ran, threads.running) == ([], 1)
    gate.open()
    await second
    await asyncio.wait({first})
    assert first.cancelled()
    await threads.wait_idle()
    threads.close()


async def test_a_second_cancellation_takes_effect_at_once(gate: Gate) -> None:
    threads = ModelThreads("m", 1)
    call = asyncio.create_task(threads.call(gate))
    await gate.wait_started(1)
    for _ in range(2):
        call.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({call}, timeout=LIMIT)
    assert call.cancelled()
    assert threads.running == 1
    gate.open()
    await threads.wait_idle()
    threads.close()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
async def test_exceptions_reach_the_caller(error: type[BaseException]) -> None:
    threads = ModelThreads("m", 1)

    async def call() -> bool:
        # Not `pytest.raises`: the loop itself handles SystemExit of a task.
        try:
            await threads.call(functools.partial(_raise, error("no")))
        except BaseException as raised:
            return isinstance(raised, error)
        return False

    assert await call()
    assert threads.running == 0
    threads.close()


@pytest.mark.parametrize("error", [StopIteration, GeneratorExit])
async def test_exceptions_that_end_coroutines_are_errors(error: type[BaseException]) -> None:
    threads = ModelThreads("m", 1)
    with pytest.raises(RuntimeError, match=f"a function raised {error.__name__}"):
        await threads.call(functools.partial(_raise, error()))
    threads.close()


def _raise(error: BaseException) -> None:
    raise error


async def test_a_closed_model_runs_nothing() -> None:
    threads = ModelThreads("m", 1)
    await threads.call(int)
    threads.close()
    with pytest.raises(RuntimeError, match="Model m is unloaded"):
        await threads.call(int)


async def test_threads_end_when_they_are_closed() -> None:
    threads = ModelThreads("ends", 2)
    await asyncio.gather(threads.call(int), threads.call(int))
    started = [thread for thread in threading.enumerate() if thread.name.startswith("ends-")]
    threads.close()
    assert started
    for thread in started:
        await asyncio.to_thread(thread.join, LIMIT)
        assert not thread.is_alive()


async def test_a_stall_is_reported_and_ends(gate: Gate) -> None:
    threads, reported = ModelThreads("m", 2), asyncio.Event()
    threads.watch(0.01, reported.set)
    calls = [asyncio.create_task(threads.call(gate)) for _ in range(2)]
    async with asyncio.timeout(LIMIT):
        await reported.wait()
    assert threads.is_stalled
    gate.open()
    await asyncio.gather(*calls)
    assert not threads.is_stalled
    threads.close()


async def test_a_free_place_is_no_stall(gate: Gate) -> None:
    threads, reported = ModelThreads("m", 2), asyncio.Event()
    threads.watch(0.0, reported.set)
    call = asyncio.create_task(threads.call(gate))
    await gate.wait_started(1)
    await threads.call(int)  # both places were taken, and one is free again
    await asyncio.sleep(0.01)
    assert not threads.is_stalled
    gate.open()
    await call
    threads.close()


def test_the_threads_serve_one_loop_after_another() -> None:
    threads = ModelThreads("m", 1)
    for number in range(3):
        assert asyncio.run(threads.call(functools.partial(int, number))) == number
    threads.close()


# -- iteration over requests --


async def test_waiting_for_an_item_leaves_the_place_to_others() -> None:
    threads, sent = ModelThreads("m", 1), asyncio.Queue[int]()

    async def items() -> AsyncIterator[int]:
        while (item := await sent.get()) >= 0:
            yield item

    reading = asyncio.create_task(threads.call(lambda: list(iterator)))
    iterator = BlockingIterator(items(), threads)
    for number in (1, 2):
        assert await threads.call(functools.partial(int, number)) == number
        sent.put_nowait(number)
    sent.put_nowait(-1)
    assert await reading == [1, 2]
    assert threads.running == 0
    threads.close()


async def test_a_closed_iterator_ends_the_function_that_waits() -> None:
    threads, waits = ModelThreads("m", 1), asyncio.Event()

    async def items() -> AsyncIterator[int]:
        waits.set()
        await asyncio.Event().wait()
        yield 1

    iterator = BlockingIterator(items(), threads)
    reading = asyncio.create_task(threads.call(lambda: list(iterator), iterator.close))
    await waits.wait()
    reading.cancel()
    await asyncio.wait({reading}, timeout=LIMIT)
    assert reading.cancelled()
    assert threads.running == 0
    assert await threads.call(lambda: list(iterator)) == []
    threads.close()


# -- which functions, how many --


class Plain(MLModel):
    def predict(self, payload: InferenceRequest) -> InferenceResponse:  # type: ignore[override]
        raise NotImplementedError

    def later(self) -> asyncio.Task[int]:
        raise NotImplementedError

    async def handler(self) -> None:
        raise NotImplementedError

    @functools.wraps(handler)
    def wrapped(self) -> Any:
        raise NotImplementedError


class CallableObject:
    async def __call__(self) -> None:
        raise NotImplementedError


MODEL = Plain(ModelSettings(name="m", implementation=Plain))


@pytest.mark.parametrize(
    "function, is_plain",
    [
        (MODEL.predict, True),
        (MODEL.later, False),
        (MODEL.handler, False),
        (MODEL.wrapped, False),
        (MODEL.load, False),
        (functools.partial(MODEL.handler), False),
        (functools.partial(MODEL.predict), True),
        (CallableObject(), False),
        (len, True),
    ],
)
def test_plain_functions(function: Callable[..., Any], is_plain: bool) -> None:
    assert is_plain_function(function) is is_plain


class Coroutine(MLModel):
    pass


@pytest.mark.parametrize(
    "cls, own, setting, expected",
    [
        (Plain, None, None, PLAIN_CONCURRENCY),
        (Coroutine, None, None, COROUTINE_CONCURRENCY),
        (Plain, 3, None, 3),
        (Plain, 3, 5, 5),
        (Coroutine, None, 1, 1),
    ],
)
def test_max_concurrency(
    cls: type[MLModel], own: int | None, setting: int | None, expected: int
) -> None:
    model = cls(ModelSettings(name="m", implementation=cls, max_concurrency=setting))
    model.max_concurrency = own
    assert get_max_concurrency(model) == expected


@pytest.mark.parametrize("own", [0, -1, 1.5, "2", True])
def test_an_invalid_max_concurrency_of_a_class(own: Any) -> None:
    model = Plain(ModelSettings(name="m", implementation=Plain))
    model.max_concurrency = own
    with pytest.raises(TypeError, match="max_concurrency: expected a whole number above 0"):
        get_max_concurrency(model)


async def test_call_in_thread_passes_arguments() -> None:
    model = Plain(ModelSettings(name="m", implementation=Plain))
    assert await model.call_in_thread(int, "11", base=2) == 3


async def test_a_thread_that_cannot_start_fails_its_call_only(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = ModelThreads("m", 2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        for _ in range(3):  # more than the places
            with pytest.raises(Unavailable, match="Model m: no thread for its call"):
                await threads.call(gate)
    assert threads.running == 0
    gate.open()
    async with asyncio.timeout(LIMIT):
        await threads.call(gate)
    threads.close()


def _cannot_start(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
