"""The payload log's stage: the first one of a model's pipeline, if the model has a payload log.

It copies a sample of the requests and responses, and changes none of them. A request that is not in
the sample costs one random number. Cached responses are logged too.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from ..metrics.model_metrics import ModelMetrics
from ..pipeline import RequestContext
from ..registry import ModelPipeline, OuterStage
from ..settings.payload_log import PayloadLogSettings
from ..types import InferenceRequest, InferenceResponse
from .events import ModelLog, PayloadEvent, copy_error, copy_request, copy_response
from .writer import PayloadWriter


class PayloadLogStage(OuterStage):
    """Logs requests and responses of one model version.

    Args:
        pipeline: The next stage.
        log: Properties that all events of the model share.
        settings: The model's payload log.
        writer: Writes the events; shared by models with the same destination.
        metrics: Counts the events.
        draw: Returns a random number of 0 to 1, excluding 1.
    """

    def __init__(
        self,
        pipeline: ModelPipeline,
        log: ModelLog,
        settings: PayloadLogSettings,
        writer: PayloadWriter,
        metrics: ModelMetrics,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(pipeline)
        self._log = log
        self._sample = settings.sample
        self._logs_requests = settings.what != "response"
        self._logs_responses = settings.what != "request"
        self._writer = writer
        self._metrics = metrics
        self._draw = draw

    def infer(
        self, request: InferenceRequest, context: RequestContext
    ) -> Coroutine[Any, Any, InferenceResponse]:
        if self._draw() >= self._sample:
            return self._pipeline.infer(request, context)
        return self._infer_logged(request, context)

    def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        if self._draw() >= self._sample:
            return self._pipeline.stream(requests, context)
        return self._stream_logged(requests, context)

    async def _infer_logged(
        self, request: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        request_id = request.id
        if self._logs_requests:
            self._put(copy_request, request)
        try:
            response = await self._pipeline.infer(request, context)
        except BaseException as error:
            if self._logs_responses:
                self._put(copy_error, error, request_id)
            raise
        if self._logs_responses:
            self._put(copy_response, response, request_id)
        return response

    async def _stream_logged(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        request_id: str | None = None

        async def log_requests() -> AsyncIterator[InferenceRequest]:
            nonlocal request_id
            index = 0
            async for request in requests:
                if index == 0:
                    request_id = request.id
                if self._logs_requests:
                    self._put(copy_request, request, index)
                index += 1
                yield request

        index = 0
        responses = self._pipeline.stream(log_requests(), context)
        try:
            async for response in responses:
                if self._logs_responses:
                    self._put(copy_response, response, request_id, index)
                index += 1
                yield response
        except BaseException as error:
            if self._logs_responses:
                self._put(copy_error, error, request_id, index)
            raise
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    def _put(self, copy: Callable[..., PayloadEvent], *values: Any) -> None:
        """Copy a message and add it to the queue. No failure of the log fails a request."""
        try:
            event = copy(self._log, *values)
        except Exception:
            self._metrics.payload_dropped("unreadable")
            return
        self._writer.put(event, self._metrics)
