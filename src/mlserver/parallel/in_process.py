"""Runs models inside the server's process, in one thread with an event loop of its own (`parallel_workers: 0`).

The server's own loop stays free, so health and timeouts go on while a model computes. A model that never returns cannot
be ended here; only worker processes give that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from ..errors import MLServerError
from ..logging import get_logger
from ..metrics import adapt_when_imported
from ..pipeline import RequestContext
from ..settings import ModelSettings
from ..types import InferenceRequest, InferenceResponse, MetadataModelResponse
from .executor import METADATA_TIMEOUT, HTTPRequest, HTTPResponse, ModelInfo
from .stream_timer import StreamTimer
from .worker.model_failures import prepare_loop, run_protected, with_result
from .worker.model_runner import ModelRunner

T = TypeVar("T")

logger = get_logger()


class InProcessExecutor:
    """A runner in a thread.

    Args:
        load_timeout: Seconds that the load of a model may take; None = no limit.
    """

    def __init__(self, load_timeout: float | None = None) -> None:
        self._load_timeout = load_timeout
        self._runner = ModelRunner()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mlserver-models", daemon=True)
        self._stopping = threading.Event()
        self._keys = 0

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        prepare_loop(self._loop)
        try:
            run_protected(self._loop, self._loop.run_forever, self._stopping.is_set)
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    async def start(self) -> None:
        adapt_when_imported()
        self._thread.start()

    async def load(self, settings: ModelSettings) -> InProcessModel:
        parameters = settings.parameters
        own = parameters.extra.get("env_manager", "local") != "local" if parameters else False
        if own or (parameters and (parameters.environment_path or parameters.environment_tarball)):
            logger.warning(
                "Model '%s' runs in the server's own process: its environment is ignored",
                settings.name,
            )
        self._keys += 1
        key = f"{settings.name}#{self._keys}"
        try:
            async with asyncio.timeout(self._load_timeout):
                info = await self.call(self._runner.load(key, settings))
        except TimeoutError:
            limit = f"{self._load_timeout:g} seconds (setting 'load_timeout')"
            raise MLServerError(f"Its load took longer than {limit}", 504) from None
        return InProcessModel(self, self._runner, key, info)

    async def stop(self, grace: float) -> None:
        if self._thread.is_alive():
            self._stopping.set()
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, grace)
        elif not self._loop.is_closed():  # it was never started
            self._loop.close()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the models' thread; cancelling the caller cancels the work."""
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(with_result(work), self._loop)
        )


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
    unavailable_reason = "the model's own 'ready' is false"

    @property
    def available(self) -> bool:
        """Whether the model's own `ready` says so, which it may change at any time."""
        return self._runner.is_ready(self._key)

    async def infer(self, request: InferenceRequest, call: RequestContext) -> InferenceResponse:
        started = time.perf_counter_ns()
        response = await self._executor.call(self._runner.infer(self._key, request, call))
        call.timings.model_ns = time.perf_counter_ns() - started
        return response

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], call: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        server_loop = asyncio.get_running_loop()

        async def fed() -> AsyncIterator[InferenceRequest]:
            while True:
                pending = asyncio.run_coroutine_threadsafe(_next(requests), server_loop)
                request = await asyncio.wrap_future(pending)
                if request is None:
                    return
                yield request

        clock = StreamTimer()
        answers = _Answers(self._runner.stream(self._key, clock.asking(fed())), clock)
        try:
            while True:
                response, elapsed = await self._executor.call(answers.next())
                if response is None:
                    return
                call.timings.model_ns += elapsed
                yield response
        finally:
            await self._executor.call(answers.close())

    async def metadata(self) -> MetadataModelResponse:
        try:
            async with asyncio.timeout(METADATA_TIMEOUT):
                self._last_metadata = await self._executor.call(self._runner.metadata(self._key))
        except TimeoutError:
            pass
        return self._last_metadata

    async def route(self, request: HTTPRequest, call: RequestContext) -> HTTPResponse:
        return await self._executor.call(self._runner.route(self._key, request))

    async def unload(self) -> bool:
        return await self._executor.call(self._runner.unload(self._key))


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


class _Answers:
    """A model's answers to one stream, in the models' loop.

    Cancelling whoever pulls does not wait for the model to notice, and a generator that still runs cannot be closed: the
    lock lets the pull end first.
    """

    def __init__(self, responses: AsyncIterator[InferenceResponse], clock: StreamTimer) -> None:
        self._responses = responses
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def next(self) -> tuple[InferenceResponse | None, int]:
        async with self._one_at_a_time:
            return await self._clock.next(self._responses)

    async def close(self) -> None:
        async with self._one_at_a_time:
            try:
                await self._responses.aclose()  # type: ignore[attr-defined]
            except (
                RuntimeError
            ) as error:  # `GeneratorExit` of a task that it awaited leaves it as if it ran
                logger.debug("A stream could not be closed: %s", error)
