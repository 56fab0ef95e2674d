"""Open streams of models whose `predict_stream` is a plain generator function: their limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.errors import Overloaded
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.pipeline import RequestContext
from mlserver.types import InferenceRequest, InferenceResponse

LIMIT = 30.0


class PlainStreams(MLModel):
    """Answers each request of a stream, from a plain function."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse(model_name=self.name, outputs=[])

    def predict_stream(  # type: ignore[override]
        self, payloads: Iterator[InferenceRequest]
    ) -> Iterator[InferenceResponse]:
        for _ in payloads:
            yield InferenceResponse(model_name=self.name, outputs=[])


async def test_streams_that_wait_for_their_clients_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlserver.model_threads.MAX_PLAIN_STREAMS", 3)
    runner = ModelRunner()
    await runner.load("m", ModelSettings(name="m", implementation=PlainStreams, max_concurrency=1))

    async def idle() -> AsyncIterator[InferenceRequest]:
        yield InferenceRequest(inputs=[])
        await asyncio.Event().wait()

    def open_stream() -> Any:
        return runner.stream("m", idle(), RequestContext())

    streams = [open_stream() for _ in range(3)]
    async with asyncio.timeout(LIMIT):
        for stream in streams:
            await anext(stream)
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="Model m: expected at most 3 open streams"):
            await anext(open_stream())
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        for stream in streams:
            await stream.aclose()
        last = open_stream()
        await anext(last)
        await last.aclose()
    await runner.unload("m")
