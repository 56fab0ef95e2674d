"""Executor in the server's process: one thread with an event loop (`parallel_workers: 0`).

The server's event loop stays responsive while a model computes. A model that never returns cannot
be stopped here; only worker processes can be killed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import MLServerError, Unavailable
from ..folder_modules import FolderModules, ImportedModules
from ..logging import get_logger
from ..metrics import adapt_when_imported
from ..pipeline import RequestContext
from ..settings import ModelSettings, Settings
from ..tracing import get_collector
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse
from .blocked_loop import log_blocks
from .executor import METADATA_TIMEOUT, HTTPRequest, HTTPResponse, ModelInfo
from .model_unload import unload_in_time
from .stream_timer import StreamTimer
from .worker.model_failures import prepare_loop, run_protected, with_result
from .worker.model_runner import ModelRunner

T = TypeVar("T")

logger = get_logger()

# Seconds between two marks of the models' loop, which show that it reacts.
MARK_INTERVAL = 0.5
# Seconds after a request's time limit in which the models' loop must react.
REACTION_TIME = 1.0
# Calls whose callers have left, of about 2 KB each, that may wait for a blocked loop to skip them.
MAX_DROPPED = 10_000


class InProcessExecutor:
    """A model runner in a thread.

    Args:
        settings: The server's settings; None = the defaults.
    """

    can_cancel_load = True

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self._load_timeout = settings.load_timeout
        self._runner = ModelRunner()
        self._runner.request_timeout = settings.request_timeout
        self._runner.is_traced = get_collector(settings) is not None
        self._unload_timeout = self._runner.unload_timeout = settings.unload_timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mlserver-models", daemon=True)
        self._stopping = threading.Event()
        self._reacted = 0.0
        self._dropped = 0
        self._keys = 0
        self._load_tasks: dict[str, asyncio.Task[Any]] = {}
        self._unawaited: set[concurrent.futures.Future[Any]] = set()
        self._modules = ImportedModules()
        self._watching: asyncio.Task[None] | None = None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        prepare_loop(self._loop)
        self._mark()
        try:
            run_protected(self._loop, self._loop.run_forever, self._stopping.is_set)
            self._loop.run_until_complete(self._cancel_tasks())
        finally:
            self._loop.close()

    def _mark(self) -> None:
        """Record, from the models' loop, that it reacts."""
        self._reacted = time.monotonic()
        self._dropped = 0
        self._loop.call_later(MARK_INTERVAL, self._mark)

    @property
    def blocked_seconds(self) -> float:
        """Seconds for which the models' loop has not reacted; up to `MARK_INTERVAL` if it does."""
        return time.monotonic() - self._reacted

    async def _cancel_tasks(self) -> None:
        # The second time for calls in threads: the first cancellation waits for their functions.
        for _ in range(2):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self, models: Sequence[ModelSettings] = ()) -> None:
        adapt_when_imported()
        self._thread.start()
        watch = log_blocks(self._thread, self._list_unready, self._find_running)
        self._watching = asyncio.get_running_loop().create_task(watch)

    def _list_unready(self) -> list[str]:
        """Return the models that are not ready because their loop is blocked."""
        return self._runner.list_limited_to(self.blocked_seconds - REACTION_TIME)

    def _find_running(self) -> str | None:
        """Return the load or the call of a model that the models' loop runs, if it is known."""
        task = asyncio.current_task(self._loop)
        for key, load in list(self._load_tasks.items()):
            if load is task:
                return f"the load of model '{key.partition('#')[0]}'"
        name = self._runner.find_caller(task)
        return None if name is None else f"a coroutine of model '{name}'"

    async def load(self, settings: ModelSettings) -> InProcessModel:
        if _has_environment(settings):
            logger.warning(
                "Model '%s': its environment is ignored, because it runs in the server's process",
                settings.name,
            )
        await self._check_isolation(settings)
        self._keys += 1
        key = f"{settings.name}#{self._keys}"
        try:
            async with asyncio.timeout(self._load_timeout):
                info = await self.call(self._load(key, settings))
        except TimeoutError:
            self.start_call(self._drop(key))
            limit = f"{self._load_timeout:g} s (setting 'load_timeout')"
            raise MLServerError(f"Model {settings.name}: load exceeded {limit}", 504) from None
        except asyncio.CancelledError:
            self.start_call(self._drop(key))
            raise
        return InProcessModel(self, self._runner, key, info)

    async def _load(self, key: str, settings: ModelSettings) -> ModelInfo:
        task = asyncio.current_task()
        assert task is not None
        self._load_tasks[key] = task
        try:
            return await self._runner.load(key, settings)
        finally:
            del self._load_tasks[key]

    async def _drop(self, key: str) -> None:
        """Unload a model whose caller is gone, after its load: one that blocks ignores its end."""
        load = self._load_tasks.get(key)
        if load is not None:
            await asyncio.wait({load})
        await self._runner.unload(key)

    async def _check_isolation(self, settings: ModelSettings) -> None:
        """Raise `MLServerError` if the model needs a process of its own."""
        isolation = settings.parameters.isolation if settings.parameters else None
        cure = "set 'parallel_workers' to 1 or more"
        if isolation == "model":
            raise MLServerError(
                f"Model {settings.name}: 'isolation' of 'model' needs worker processes: {cure}", 500
            )
        modules = await asyncio.to_thread(FolderModules.from_settings, settings)
        if modules is None:
            return
        reason = self._modules.find_conflict(modules) if isolation is None else None
        if reason is not None:
            raise MLServerError(
                f"Model {settings.name}: {reason}, and its files look modules up by name. In the "
                f"server's own process ('parallel_workers' of 0) both would be one module: {cure}, "
                "or restart the server after a change of files; if the model uses `import` "
                "statements only, set its 'parameters.isolation' to 'shared'",
                500,
            )
        self._modules.add(modules)

    async def stop(self, grace: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._thread.is_alive():
            self._stopping.set()
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, grace)
        elif not self._loop.is_closed():  # never started
            self._loop.close()

    async def unload(self, runner: ModelRunner, key: str) -> bool:
        return await unload_in_time(key, self.call(runner.unload(key)), self._unload_timeout)

    async def call(
        self, work: Coroutine[Any, Any, T], on_dropped: Callable[[], object] | None = None
    ) -> T:
        """Run a coroutine in the models' thread; cancelling the caller cancels the coroutine.

        Args:
            on_dropped: Called if the caller is cancelled before the coroutine has started. Its
                request is released then, although the models' loop may be blocked.

        Raises:
            Unavailable: the models' loop has not reacted since `MAX_DROPPED` callers have left.
        """
        if self._dropped >= MAX_DROPPED:
            work.close()
            raise Unavailable(
                "The event loop of the models does not react: the coroutine of a model, or a load, "
                "blocks it"
            )
        unstarted = [work]
        try:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(_start(unstarted), self._loop)
            )
        except asyncio.CancelledError:
            with suppress(IndexError):  # the models' thread has taken it
                unstarted.pop().close()
                self._dropped += 1
                if on_dropped is not None:
                    on_dropped()
            raise

    def start_call(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the models' thread, without waiting for it; errors are logged."""
        if self._stopping.is_set():
            work.close()
            return
        future = asyncio.run_coroutine_threadsafe(with_result(work), self._loop)
        self._unawaited.add(future)
        future.add_done_callback(self._finish_call)

    def _finish_call(self, future: concurrent.futures.Future[Any]) -> None:
        self._unawaited.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None:
            logger.warning("A model failed while it released what a caller had left: %s", error)


async def _start(unstarted: list[Coroutine[Any, Any, T]]) -> T:
    try:
        work = unstarted.pop()
    except IndexError:  # the caller has left
        raise asyncio.CancelledError from None
    return await with_result(work)


def _has_environment(settings: ModelSettings) -> bool:
    parameters = settings.parameters
    if parameters is None:
        return False
    is_built = parameters.extra.get("env_manager", "local") != "local"
    return is_built or bool(parameters.environment_path or parameters.environment_tarball)


class InProcessModel:
    """A model in the models' thread."""

    def __init__(
        self, executor: InProcessExecutor, runner: ModelRunner, key: str, info: ModelInfo
    ) -> None:
        self._executor = executor
        self._runner = runner
        self._key = key
        self.info = info
        self._last_metadata = info.metadata

    capacity = 1

    @property
    def unavailable_reason(self) -> str:
        return self._get_stall_reason() or "the model's own 'ready' is false"

    def _get_stall_reason(self) -> str | None:
        """Return why no request of the model can run at present; None if one can."""
        limit = self._runner.get_time_limit(self._key)
        if limit is not None and self._executor.blocked_seconds > limit + REACTION_TIME:
            return (
                f"the event loop of the models has not reacted for {limit:g} s (setting "
                "'request_timeout'): the coroutine of a model, or a load, blocks it"
            )
        return self._runner.get_stall_reason(self._key)

    @property
    def available(self) -> bool:
        """Whether the model's `ready` is true, which the model may change at any time, and it can
        run a request."""
        return self._runner.is_ready(self._key) and self._get_stall_reason() is None

    @property
    def abandoned_calls(self) -> int:
        return self._runner.count_abandoned(self._key)

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        started = time.perf_counter_ns()
        response = await self._executor.call(self._runner.infer(self._key, request, context))
        context.timings.model_ns = time.perf_counter_ns() - started
        return response

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        server_loop = asyncio.get_running_loop()

        async def read_requests() -> AsyncIterator[InferenceRequest]:
            """Runs in the models' loop and reads in the server's."""
            while True:
                pending = asyncio.run_coroutine_threadsafe(_read_next(requests), server_loop)
                request = await asyncio.wrap_future(pending)
                if request is None:
                    return
                yield request

        timer = StreamTimer()
        model_stream = self._runner.stream(self._key, timer.exclude_wait(read_requests()), context)
        responses = _ResponseStream(model_stream, timer)
        try:
            while True:
                response, elapsed = await self._executor.call(responses.next(), responses.drop)
                if response is None:
                    return
                context.timings.model_ns += elapsed
                yield response
        finally:
            if responses.has_started:
                # Not awaited: it waits for the function that computes the next response.
                self._executor.start_call(responses.close())

    async def metadata(self) -> MetadataModelResponse:
        try:
            async with asyncio.timeout(METADATA_TIMEOUT):
                self._last_metadata = await self._executor.call(self._runner.metadata(self._key))
        except TimeoutError:
            pass
        return self._last_metadata

    async def resolve_source(self, uri: str) -> str:
        return await self._executor.call(self._runner.resolve_source(self._key, uri))

    async def route(self, request: HTTPRequest, context: RequestContext) -> HTTPResponse:
        return await self._executor.call(self._runner.route(self._key, request))

    async def unload(self) -> bool:
        return await self._executor.unload(self._runner, self._key)


async def _read_next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


class _ResponseStream:
    """The responses of a model to one stream, in the models' loop.

    Cancelling a caller of `next` does not wait for the model to stop, and a running generator
    cannot be closed. The lock lets `next` end before `close` starts.
    """

    def __init__(self, responses: AsyncIterator[InferenceResponse], timer: StreamTimer) -> None:
        self._responses = responses
        self._timer = timer
        self._lock = asyncio.Lock()
        self._count = 0
        self.has_started = True

    def drop(self) -> None:
        """A call of `next` was dropped: if it was the first, there is nothing to close."""
        self.has_started = self._count > 0

    async def next(self) -> tuple[InferenceResponse | None, int]:
        self._count += 1
        async with self._lock:
            return await self._timer.next(self._responses)

    async def close(self) -> None:
        async with self._lock:
            try:
                await self._responses.aclose()  # type: ignore[attr-defined]
            except RuntimeError as error:
                # `GeneratorExit` from a task that the generator awaited leaves it marked as
                # running.
                logger.debug("A stream could not be closed: %s", error)
