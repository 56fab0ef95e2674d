"""The payload log's stage: sample, what is logged, errors and streams; the queue is bounded."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.payload_log import writer as writer_module
from mlserver.payload_log.events import ModelLog, PayloadEvent, copy_request
from mlserver.payload_log.queue import EventQueue
from mlserver.payload_log.stage import PayloadLogStage
from mlserver.payload_log.writer import PayloadWriter
from mlserver.pipeline import RequestContext
from mlserver.settings.payload_log import PayloadLogSettings
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput

LOG = ModelLog("echo", None, 65536)


def request_of(value: float = 1.0, request_id: str = "r1") -> InferenceRequest:
    tensor = RequestInput(name="x", datatype="FP64", shape=[1], data=[value])
    return InferenceRequest(id=request_id, inputs=[tensor])


class Echo:
    """The next stage: returns the inputs, or raises `error` if it is set."""

    max_batch_size = 7
    open_requests = (0, 0)
    error: BaseException | None = None

    async def drained(self) -> None:
        return None

    def count_route(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def infer(self, request: InferenceRequest, context: RequestContext) -> InferenceResponse:
        if self.error is not None:
            raise self.error
        outputs = [ResponseOutput(**tensor.model_dump()) for tensor in request.inputs]
        return InferenceResponse(model_name="echo", outputs=outputs)

    async def stream(
        self, requests: AsyncIterator[InferenceRequest], context: RequestContext
    ) -> AsyncIterator[InferenceResponse]:
        async for request in requests:
            yield await self.infer(request, context)


class Logged:
    """A stage with a file, and what is in it after `close`."""

    def __init__(self, folder: Path, draw: Callable[[], float] = lambda: 0.0, **keys: Any) -> None:
        self.path = folder / "log.jsonl"
        settings = PayloadLogSettings(**{"to": str(self.path), "sample": 1.0} | keys)
        self.metrics = ServerMetrics()
        self.metrics.add_model("echo", None)
        self.next = Echo()
        self.writer = PayloadWriter(settings, 0)
        self.stage = PayloadLogStage(
            self.next, LOG, settings, self.writer, self.metrics.for_model("echo", None), draw
        )

    async def close(self) -> list[dict[str, Any]]:
        await self.writer.close()
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def dropped(self) -> dict[str, float]:
        values = self.metrics.models.payload_dropped.values
        return {labels[2]: count for labels, count in values.items()}


async def test_requests_and_responses_are_logged_with_the_request_id(tmp_path: Path) -> None:
    log = Logged(tmp_path)
    response = await log.stage.infer(request_of(2.5), RequestContext())
    assert response.outputs[0].data.root == [2.5]
    lines = await log.close()
    assert [(line["type"], line["id"]) for line in lines] == [("request", "r1"), ("response", "r1")]
    request, response_line = lines
    assert request["inputs"][0]["data"] == response_line["outputs"][0]["data"] == [2.5]
    assert log.metrics.models.payload_events.values == {("echo", ""): 2}


@pytest.mark.parametrize(
    ("what", "expected"),
    [("request", ["request"]), ("response", ["response"]), ("both", ["request", "response"])],
)
async def test_what_selects_the_events(tmp_path: Path, what: str, expected: list[str]) -> None:
    log = Logged(tmp_path, what=what)
    await log.stage.infer(request_of(), RequestContext())
    assert [line["type"] for line in await log.close()] == expected


async def test_the_sample_is_the_share_of_requests(tmp_path: Path) -> None:
    log = Logged(tmp_path, random.Random(7).random, sample=0.1, what="request")
    for number in range(2000):
        await log.stage.infer(request_of(request_id=str(number)), RequestContext())
    draws = random.Random(7)
    expected = sum(draws.random() < 0.1 for _ in range(2000))
    assert 150 < expected < 250
    assert len(await log.close()) == expected


async def test_a_failed_request_is_logged_with_its_status(tmp_path: Path) -> None:
    log = Logged(tmp_path)
    log.next.error = MLServerError("no: 4711", 422)
    with pytest.raises(MLServerError, match="4711"):
        await log.stage.infer(request_of(), RequestContext())
    _, response = await log.close()
    assert response["error"]["status"] == 422
    assert "4711" not in json.dumps(response)


async def test_a_stream_is_logged_message_by_message(tmp_path: Path) -> None:
    log = Logged(tmp_path)

    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request_of(1.0)
        yield request_of(2.0)

    responses = [response async for response in log.stage.stream(requests(), RequestContext())]
    assert len(responses) == 2
    lines = await log.close()
    assert [(line["type"], line["id"], line.get("index", 0)) for line in lines] == [
        ("request", "r1", 0),
        ("response", "r1", 0),
        ("request", "r1", 1),
        ("response", "r1", 1),
    ]


async def test_requests_outside_of_the_sample_pass_unseen(tmp_path: Path) -> None:
    log = Logged(tmp_path, lambda: 0.5, sample=0.5)
    assert log.stage.max_batch_size == 7
    request = request_of()
    coroutine = log.stage.infer(request, RequestContext())
    assert "Echo.infer" in repr(coroutine)
    await coroutine
    assert await log.close() == []


def test_the_queue_is_bounded_by_events_and_by_bytes() -> None:
    event = copy_request(LOG, request_of())
    queue = EventQueue(max_events=3, max_bytes=10**9)
    assert [queue.put(event) for _ in range(5)] == [True, True, True, False, False]
    queue = EventQueue(max_events=100, max_bytes=event.size * 2)
    assert [queue.put(event) for _ in range(3)] == [True, True, False]
    assert queue.take() == [event]
    assert queue.put(event)
    assert queue.bytes_held == event.size * 2


def test_events_are_taken_together_and_the_end_after_them() -> None:
    queue = EventQueue()
    events = [copy_request(LOG, request_of(request_id=str(number))) for number in range(5)]
    for event in events:
        queue.put(event)
    queue.close(1)
    assert queue.take(3, 0.01) == events[:3]
    assert queue.take(3, 0.01) == events[3:]
    assert queue.take(3, 0.01) == []
    assert queue.bytes_held == 0


class Blocked:
    """A destination that waits for `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = threading.Event()

    def write(self, events: list[PayloadEvent]) -> list[str | None]:
        self.started.set()
        self.go.wait()
        return [None for _ in events]

    def close(self) -> None:
        pass


async def test_a_destination_that_blocks_delays_nothing_and_drops_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Blocked()
    monkeypatch.setattr(writer_module, "_make_factory", lambda *_: lambda: blocked)
    monkeypatch.setattr(writer_module, "EventQueue", lambda: EventQueue(max_events=10))
    monkeypatch.setattr(writer_module, "FILE_BATCH", 1)
    log = Logged(tmp_path, what="request")
    await log.stage.infer(request_of(), RequestContext())
    assert await asyncio.to_thread(blocked.started.wait, 30)
    for _ in range(30):
        await log.stage.infer(request_of(), RequestContext())
    assert log.dropped() == {"queue_full": 20}
    await log.writer.close(limit=0.01)
    assert log.dropped() == {"queue_full": 20, "shutdown": 10}
    await log.stage.infer(request_of(), RequestContext())
    assert log.dropped()["shutdown"] == 11
    blocked.go.set()


async def test_a_file_that_cannot_be_written_is_counted_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = Logged(tmp_path, to=str(tmp_path / "gone" / "log.jsonl"))
    await log.stage.infer(request_of(), RequestContext())
    assert await log.close() == []
    assert log.dropped() == {"write_failed": 2}


async def test_a_message_that_cannot_be_copied_does_not_fail_the_request(tmp_path: Path) -> None:
    log = Logged(tmp_path, what="request")
    tensor = RequestInput(name="x", datatype="BYTES", shape=[3], data=["a"])
    await log.stage.infer(InferenceRequest(id="r", inputs=[tensor]), RequestContext())
    assert log.dropped() == {"unreadable": 1}
    assert await log.close() == []
