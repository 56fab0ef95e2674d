"""Calls of one model's methods: coroutines on the event loop, plain functions in its threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...log_context import LogContext
from ...model_threads import BlockingIterator, get_threads, is_plain_function
from ...types import InferenceRequest, InferenceResponse
from .coroutine_calls import CoroutineCalls
from .model_contract import check_stream

if TYPE_CHECKING:
    from ...model import MLModel

_END = object()


class ModelMethods:
    """The methods of a loaded model that run requests.

    Args:
        model: A model that is loaded: its `max_concurrency` is final.
        stall_seconds: Seconds after which the model is stalled if all its threads are in use and
            none has started or ended a call; None = never.
        on_stalled: Called on the loop when the model is stalled.

    Attributes:
        threads: The model's threads.
        calls: Entered around the calls of its coroutines.
    """

    def __init__(
        self, model: MLModel, stall_seconds: float | None, on_stalled: Callable[[], None]
    ) -> None:
        self.model = model
        self.threads = get_threads(model)
        self.calls = CoroutineCalls(model.name)
        self.threads.watch(stall_seconds, on_stalled)
        self._is_plain = is_plain_function(model.predict)
        limit = model.settings.max_concurrency
        # The scheduler keeps the limit too, but each HTTP worker process has a scheduler.
        self._turns = asyncio.Semaphore(limit) if limit and not self._is_plain else None

    @property
    def stall_reason(self) -> str | None:
        """Why no request can run: all threads are in calls past the time limit; None if one can."""
        threads = self.threads
        if not threads.is_stalled:
            return None
        return (
            f"the {threads.limit} calls that may run at a time (setting 'max_concurrency') have "
            f"exceeded {threads.stall_seconds:g} s (setting 'request_timeout')"
        )

    async def predict(self, request: InferenceRequest) -> object:
        """Return what the model's `predict` returns."""
        if self._is_plain:
            response: object = await self.threads.call(partial(self.model.predict, request))
            if not inspect.isawaitable(response):
                return response
            # A plain function of an unusual kind may return an awaitable too.
            with self.calls:
                return await response
        with self.calls:
            if self._turns is None:
                response = self.model.predict(request)
                return await response if inspect.isawaitable(response) else response
            async with self._turns:
                return await self.model.predict(request)

    def predict_stream(self, requests: AsyncIterator[InferenceRequest]) -> AsyncIterator[Any]:
        """Return the iterator over what the model's `predict_stream` yields."""
        method: Any = self.model.predict_stream
        if not inspect.isgeneratorfunction(inspect.unwrap(method)):
            return check_stream(self.model, method(requests))
        return _iterate_in_threads(self, method, requests)


async def _iterate_in_threads(
    methods: ModelMethods,
    function: Callable[[Any], Any],
    requests: AsyncIterator[InferenceRequest],
) -> AsyncGenerator[InferenceResponse, None]:
    """Yield the items of a plain generator function; each is computed by one call in a thread.

    All calls run in one context, so that context variables keep their values between items.
    """
    threads = methods.threads
    with threads.open_stream():
        iterator = BlockingIterator(requests, threads)
        context = contextvars.copy_context()
        responses = function(iterator)
        try:
            while True:
                step = partial(context.run, next, responses, _END)
                item: Any = await threads.call(step, iterator.close)
                if item is _END:
                    return
                yield item
        finally:
            iterator.close()
            await threads.call(partial(context.run, responses.close))


async def note_ids(
    requests: AsyncIterator[InferenceRequest], log_context: LogContext
) -> AsyncIterator[InferenceRequest]:
    """Yield the requests of a stream; log lines have the id of the last one that was read."""
    async for request in requests:
        log_context.request_id = request.id or ""
        yield request
