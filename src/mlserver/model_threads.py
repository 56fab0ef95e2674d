"""Threads of one model: its plain functions run in them, a bounded number at a time.

The event loop of the process stays responsive while they run. All counts are kept on that loop, so
that no lock is needed; a thread only takes calls from a queue and reports their results.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import Overloaded, Unavailable, format_exception

if TYPE_CHECKING:
    from .settings import ModelSettings

T = TypeVar("T")

# Calls of a model that run at a time in each worker, if neither its settings nor its class say. For
# plain functions FastAPI's number: a function that waits is served as fast as there.
PLAIN_CONCURRENCY = 40
COROUTINE_CONCURRENCY = 64
# Open streams of a model whose `predict_stream` is a plain generator function, in each process:
# each keeps a thread while it waits for the next request of its client.
MAX_PLAIN_STREAMS = 1000
_ATTRIBUTE = "_mlserver_threads"
_AWAITABLE_HINT = re.compile(r"\b(Awaitable|Coroutine|Future|Task)\b")


class _Call:
    """One call of a function.

    Attributes:
        future: Its result; cancelled if the caller was.
        ended: Set when a cancelled caller waits for the end of the function.
    """

    __slots__ = ("context", "ended", "function", "future")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.future = future
        self.ended: asyncio.Future[None] | None = None


class ModelThreads:
    """Runs plain functions of one model in threads of its own.

    A function that runs cannot be stopped. If its caller is cancelled, the function keeps its place
    among the `limit` until it returns.

    Args:
        name: The model's name, for the threads' names.
        limit: Functions that run at a time; further calls wait in the order of their arrival.

    Attributes:
        stall_seconds: See `is_stalled`; None = never stalled.
        on_abandoned: Called on the loop with each new value of `abandoned`.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.limit = limit
        self._name = name
        self.stall_seconds: float | None = None
        self._on_stalled: Callable[[], None] | None = None
        self.on_abandoned: Callable[[int], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._threads = 0
        self._streams = 0
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._reset()

    def _reset(self) -> None:
        self._end_threads()
        self._calls = queue.SimpleQueue()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event | None = None
        self._in_threads = 0
        self._running = 0
        self._abandoned = 0
        self._last_start = 0.0
        self._stall_timer: asyncio.TimerHandle | None = None

    def watch(self, stall_seconds: float | None, on_stalled: Callable[[], None]) -> None:
        """Call `on_stalled` on the loop when `is_stalled` becomes true; None = never."""
        self.stall_seconds = stall_seconds
        self._on_stalled = on_stalled

    @property
    def running(self) -> int:
        """Functions that run, those of cancelled callers included."""
        return self._running

    @property
    def abandoned(self) -> int:
        """Functions that run although their callers were cancelled."""
        return self._abandoned

    @property
    def is_stalled(self) -> bool:
        """Whether `limit` functions run and none has started or ended for `stall_seconds`."""
        if self.stall_seconds is None or self._running < self.limit:
            return False
        return time.monotonic() - self._last_start >= self.stall_seconds

    async def call(
        self, function: Callable[[], T], on_cancelled: Callable[[], object] | None = None
    ) -> T:
        """Run a function in a thread, in a copy of the caller's context; return its result.

        If the caller is cancelled while the function waits for its turn, the function does not run.
        If it runs already, the cancellation takes effect when it returns; a second one at once.

        Args:
            on_cancelled: Called if the caller is cancelled while the function runs.

        Raises:
            RuntimeError: the function raised StopIteration or GeneratorExit, which no coroutine can
                raise; or the model is unloaded.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the first call, or the program runs another loop by now
            self._loop = loop
            self._reset()
        if self._is_closed:
            raise RuntimeError(f"Model {self._name} is unloaded: no further call can run")
        await self.acquire()
        call = _Call(function, loop.create_future())
        self._submit(call)
        try:
            result: T = await call.future
        except asyncio.CancelledError:
            if call.future.cancelled():  # by the caller: the function itself still runs
                if on_cancelled is not None:
                    on_cancelled()
                call.ended = loop.create_future()
                self._count_abandoned(1)
                await call.ended
            raise
        return result

    async def acquire(self) -> None:
        """Take one of the `limit` places, in the order of arrival."""
        if self._running >= self.limit or self._waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    with suppress(ValueError):
                        self._waiting.remove(turn)
                else:  # cancelled after `release` has passed the place on
                    self.release()
                raise
        else:
            self._running += 1
        self._last_start = time.monotonic()
        if self._running >= self.limit:
            self._watch_stall()

    def release(self) -> None:
        """Give a place back; the first call that waits gets it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1
        if not self._running and self._idle is not None:
            self._idle.set()

    @contextmanager
    def open_stream(self) -> Iterator[None]:
        """Count a stream that may keep a thread while it waits for its client.

        Raises:
            Overloaded: `MAX_PLAIN_STREAMS` are open.
        """
        if self._streams >= MAX_PLAIN_STREAMS:
            raise Overloaded(
                f"Model {self._name}: expected at most {MAX_PLAIN_STREAMS} open streams in each "
                "worker, because its 'predict_stream' is a plain function, which keeps a thread "
                "for each; an 'async def predict_stream' has no such limit"
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def wait_idle(self) -> None:
        """Return when no function runs and none waits."""
        while self._running:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def close(self) -> None:
        """End the threads once their functions have returned; further calls fail."""
        self._is_closed = True
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self._end_threads()

    # -- on the loop --

    def _end_threads(self) -> None:
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0

    def _submit(self, call: _Call) -> None:
        if self._in_threads >= self._threads:
            try:
                self._start_thread()
            except RuntimeError as error:  # a limit of the system
                self.release()
                raise Unavailable(f"Model {self._name}: no thread for its call: {error}") from None
        self._in_threads += 1
        self._calls.put(call)

    def _start_thread(self) -> None:
        # A daemon: a function that never returns must not block the exit of the process.
        name = f"{self._name}-{self._threads + 1}"
        arguments = (self._calls, asyncio.get_running_loop(), self._finish)
        threading.Thread(target=_run_calls, args=arguments, name=name, daemon=True).start()
        self._threads += 1

    def _finish(self, call: _Call, result: Any, error: BaseException | None) -> None:
        self._in_threads -= 1
        if call.ended is not None:
            self._count_abandoned(-1)
            if not call.ended.done():
                call.ended.set_result(None)
        # After `ended`: the caller may have a last call to make, which `wait_idle` waits for too.
        self.release()
        if call.future.done():
            return
        if error is None:
            call.future.set_result(result)
        else:
            call.future.set_exception(error)

    def _count_abandoned(self, change: int) -> None:
        self._abandoned += change
        if self.on_abandoned is not None:
            self.on_abandoned(self._abandoned)

    def _watch_stall(self) -> None:
        if self.stall_seconds is None or self._stall_timer is not None:
            return
        remaining = self._last_start + self.stall_seconds - time.monotonic()
        loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(max(0.0, remaining), self._check_stall)

    def _check_stall(self) -> None:
        self._stall_timer = None
        if self._running < self.limit:
            return
        if not self.is_stalled:
            self._watch_stall()
        elif self._on_stalled is not None:
            self._on_stalled()


def _run_calls(
    calls: queue.SimpleQueue[_Call | None],
    loop: asyncio.AbstractEventLoop,
    finish: Callable[[_Call, Any, BaseException | None], None],
) -> None:
    """The main function of a thread: run calls until the queue returns None."""
    while (call := calls.get()) is not None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call.context.run(call.function)
        except (StopIteration, GeneratorExit) as raised:
            # A future cannot hold StopIteration, and GeneratorExit closes the coroutines that wait
            # for it: RuntimeError, as in a coroutine (PEP 479).
            error = RuntimeError(f"a function raised {format_exception(raised)}")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(finish, call, result, error)
        except RuntimeError:  # the loop is closed: the process ends
            return
        del call, result, error  # while the thread waits, nothing of the request is kept


class ThreadedModel(Protocol):
    """What is read of a model."""

    max_concurrency: int | None

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> ModelSettings: ...

    @property
    def predict(self) -> Any: ...


def get_threads(model: ThreadedModel) -> ModelThreads:
    """Return the threads of a model, created at the first call."""
    threads: ModelThreads | None = vars(model).get(_ATTRIBUTE)
    if threads is None:
        threads = vars(model)[_ATTRIBUTE] = ModelThreads(model.name, 1)
    threads.limit = get_max_concurrency(model)  # `load` may have set the model's
    return threads


def get_max_concurrency(model: ThreadedModel) -> int:
    """Return how many calls of a model run at a time in one process.

    Raises:
        TypeError: the model's own `max_concurrency` is not a number of at least 1.
    """
    if model.settings.max_concurrency is not None:
        return model.settings.max_concurrency
    limit = model.max_concurrency
    if limit is None:
        return PLAIN_CONCURRENCY if is_plain_function(model.predict) else COROUTINE_CONCURRENCY
    if type(limit) is not int or limit < 1:
        raise TypeError(f"max_concurrency: expected a whole number above 0, received {limit!r}")
    return limit


async def call_method(model: ThreadedModel, method: Callable[..., Any], argument: Any) -> Any:
    """Return the result of a method: a plain function runs in a thread of the model."""
    if is_plain_function(method):
        return await get_threads(model).call(functools.partial(method, argument))
    return await method(argument)


def is_plain_function(function: Any) -> bool:
    """Whether a function must run in a thread, because it is neither a coroutine function nor
    declared to return an awaitable, which it could only create on the event loop."""
    inner = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    if any(map(inspect.iscoroutinefunction, (function, inner, inner.__call__))):
        return False
    hint = str(getattr(inner, "__annotations__", {}).get("return", ""))
    return _AWAITABLE_HINT.search(hint) is None


class BlockingIterator(Iterator[T]):
    """Iterates over an async iterator from a thread of a model.

    While it waits for the next item, another call may have the thread's place among the limit.
    """

    def __init__(self, items: AsyncIterator[T], threads: ModelThreads) -> None:
        self._items = items
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[Any] | None = None
        self._is_closed = False

    def __next__(self) -> T:
        item = asyncio.run_coroutine_threadsafe(self._read(), self._loop).result()
        if not item:
            raise StopIteration
        return item[0]

    def close(self) -> None:
        """End the iteration, from the loop; a thread that waits for an item gets CancelledError."""
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> tuple[T, ...]:
        """Return the next item, () after the last one."""
        if self._is_closed:
            return ()
        self._reading = asyncio.current_task()
        self._threads.release()
        try:
            return (await anext(self._items),)
        except StopAsyncIteration:
            return ()
        finally:
            self._reading = None
            await self._threads.acquire()
