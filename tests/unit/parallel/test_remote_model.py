"""Calls to workers over real connections: which one is picked, and which calls are retried."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mlserver.errors import MLServerError, Unavailable
from mlserver.parallel import remote_model
from mlserver.parallel.executor import HTTPRequest, ModelInfo
from mlserver.parallel.remote_model import OUT_OF_MEMORY, RemoteModel, WorkerGroup
from mlserver.parallel.rpc.client import RPCClient
from mlserver.parallel.rpc.connection import FramedConnection, open_connection
from mlserver.parallel.rpc.protocol import Frame, MessageType, pack_error, pack_response
from mlserver.pipeline import RequestContext
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

from .conftest import request

LIMIT = 60.0
KEY = "m#1"
Answer = Callable[[Frame], Frame | None]


class Worker(RPCClient):
    """A connection to a peer that answers each frame by a function, or ends on None."""

    def __init__(self, group: Group, answer: Answer) -> None:
        super().__init__(lambda frame: None)
        self.received: list[MessageType] = []
        self._group = group
        self._answer = answer
        self._peer: FramedConnection | None = None

    async def connect(self) -> None:
        own_end, peer_end = socket.socketpair()
        self._peer = await open_connection(peer_end, self._receive, lambda reason: None)
        await self.open(own_end)

    def _receive(self, frame: Frame) -> None:
        assert self._peer is not None
        self.received.append(MessageType(frame.kind))
        answer = self._answer(frame)
        if answer is None:
            self._peer.abort()
        else:
            self._peer.send(answer)

    def _on_closed(self, reason: Exception | None) -> None:
        self._group.remove(self)
        super()._on_closed(reason)


class Group(WorkerGroup[Worker]):
    async def add(self, answer: Answer, key: str = KEY) -> Worker:
        worker = Worker(self, answer)
        await worker.connect()
        worker.model_keys.add(key)
        self._ready.append(worker)
        self._announce()
        return worker

    def remove(self, worker: Worker) -> None:
        if worker in self._ready:
            self._ready.remove(worker)

    def close(self) -> None:
        for worker in list(self._ready):
            worker.abort()


@pytest.fixture
async def group(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Group]:
    monkeypatch.setattr(remote_model, "RETRY_DELAY", 0.001)
    group = Group()
    async with asyncio.timeout(LIMIT):
        yield group
    group.close()
    await asyncio.sleep(0)  # the transports close in callbacks


def die(frame: Frame) -> None:
    return None


def reply(frame: Frame) -> Frame:
    values = pack_response(InferenceResponse(model_name="m", outputs=[]), [])
    return Frame(MessageType.REPLY, frame.id, [1, values])


def fail(frame: Frame) -> Frame:
    return Frame(MessageType.ERROR, frame.id, pack_error(MLServerError("no", 500)))


def describe(frame: Frame) -> Frame:
    return Frame(MessageType.REPLY, frame.id, metadata("from the worker").model_dump())


def metadata(platform: str) -> MetadataModelResponse:
    return MetadataModelResponse(name="m", platform=platform, inputs=[], outputs=[])


def model_of(group: Group) -> RemoteModel:
    return RemoteModel(group, KEY, ModelInfo(metadata("from the load")), None)


# -- which calls are retried --


async def test_a_request_is_retried_once(group: Group) -> None:
    first, second = await group.add(die), await group.add(reply)
    response = await model_of(group).infer(request("a"), RequestContext())
    assert response.model_name == "m"
    assert (first.received, second.received) == ([MessageType.INFER], [MessageType.INFER])


@pytest.mark.parametrize("cause", ["", OUT_OF_MEMORY])
async def test_a_request_is_not_retried_twice(group: Group, cause: str) -> None:
    workers = [await group.add(die), await group.add(die), await group.add(reply)]
    group.last_death = cause
    with pytest.raises(Unavailable) as caught:
        await model_of(group).infer(request("a"), RequestContext())
    assert str(caught.value) == f"Two worker processes ended while they ran this request{cause}"
    assert [worker.received for worker in workers] == [[MessageType.INFER]] * 2 + [[]]


async def test_an_error_of_the_model_is_not_retried(group: Group) -> None:
    first, second = await group.add(fail), await group.add(reply)
    with pytest.raises(MLServerError, match="no"):
        await model_of(group).infer(request("a"), RequestContext())
    assert (first.received, second.received) == ([MessageType.INFER], [])


async def test_a_stream_is_not_retried(group: Group) -> None:
    first, second = await group.add(die), await group.add(reply)

    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request("a")

    with pytest.raises(Unavailable, match="The worker process ended in the middle of this stream"):
        await anext(model_of(group).stream(requests(), RequestContext()))
    assert first.received[0] == MessageType.STREAM
    assert second.received == []


async def test_a_call_of_a_custom_route_is_not_retried(group: Group) -> None:
    first, second = await group.add(die), await group.add(reply)
    with pytest.raises(Unavailable, match="The worker process ended while it ran this request"):
        await model_of(group).route(HTTPRequest("POST", "/"), RequestContext())
    assert (first.received, second.received) == ([MessageType.ROUTE], [])


async def test_metadata_without_a_worker_is_the_last_known(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_model, "REPLACEMENT_WAIT", 0.001)
    model = model_of(group)
    assert (await model.metadata()).platform == "from the load"
    worker = await group.add(describe)
    assert (await model.metadata()).platform == "from the worker"
    group.remove(worker)
    worker.abort()
    assert (await model.metadata()).platform == "from the worker"
    await group.add(die)
    assert (await model.metadata()).platform == "from the worker"


# -- which worker is picked --


async def test_a_request_waits_for_a_replacement(group: Group) -> None:
    model = model_of(group)
    waiting = asyncio.ensure_future(model.infer(request("a"), RequestContext()))
    await asyncio.sleep(0)
    assert (model.available, model.capacity) == (False, 1)
    other = await group.add(reply, key="other#1")
    worker = await group.add(reply)
    assert (await waiting).model_name == "m"
    assert (other.received, worker.received) == ([], [MessageType.INFER])
    assert (model.available, model.capacity) == (True, 2)


async def test_a_request_without_a_replacement_is_refused(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_model, "REPLACEMENT_WAIT", 0.001)
    group.last_death = OUT_OF_MEMORY
    with pytest.raises(Unavailable) as caught:
        await model_of(group).infer(request("a"), RequestContext())
    assert str(caught.value) == WorkerGroup.unavailable_message + OUT_OF_MEMORY


async def test_the_least_loaded_worker_is_picked(group: Group) -> None:
    workers = [await group.add(reply) for _ in range(3)]
    for counts in ([2, 1, 3], [1, 1, 0], [0, 1, 2]):
        for worker, count in zip(workers, counts, strict=True):
            worker.in_flight = count
        assert (await group.pick_worker(KEY)) is workers[counts.index(min(counts))]


# -- what is sent and returned --


async def test_times_of_the_model_and_of_the_transport(group: Group) -> None:
    def take_time(frame: Frame) -> Frame:
        answer = reply(frame)
        answer.head[0] = 1_000_000
        time.sleep(0.001)
        return answer

    await group.add(take_time)
    context = RequestContext()
    started = time.perf_counter_ns()
    await model_of(group).infer(request("a"), context)
    elapsed = time.perf_counter_ns() - started
    assert context.timings.model_ns == 1_000_000
    assert 0 <= context.timings.transport_ns <= elapsed - 1_000_000


async def test_times_of_a_stream(group: Group) -> None:
    """Those of the model are added; it may compute a response before it is pulled."""
    pulls: list[Frame] = []

    def answer(frame: Frame) -> Frame:
        if frame.kind != MessageType.PULL:
            return Frame(MessageType.METRICS, 0, None)
        pulls.append(frame)
        if len(pulls) > 2:
            return Frame(MessageType.END, frame.id, None)
        item = reply(frame)
        return Frame(MessageType.ITEM, frame.id, [10**15, item.head[1]])

    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request("a")

    await group.add(answer)
    context = RequestContext()
    stream = model_of(group).stream(requests(), context)
    assert [response.model_name async for response in stream] == ["m", "m"]
    assert (context.timings.model_ns, context.timings.transport_ns) == (2 * 10**15, 0)


@pytest.mark.parametrize("body", [b"", b"text"])
async def test_a_call_of_a_custom_route(group: Group, body: bytes) -> None:
    frames: list[Frame] = []

    def answer(frame: Frame) -> Frame:
        frames.append(frame)
        return Frame(MessageType.REPLY, frame.id, [201, [[b"x-a", b"1"]]], [b"created"])

    await group.add(answer)
    sent = HTTPRequest("POST", "/twice", b"a=1", [(b"x-b", b"2")], body)
    response = await model_of(group).route(sent, RequestContext())
    assert (response.status, response.headers, response.body) == (
        201,
        [(b"x-a", b"1")],
        b"created",
    )
    assert frames[0].head == [KEY, "POST", "/twice", b"a=1", [[b"x-b", b"2"]]]
    assert [bytes(buffer) for buffer in frames[0].buffers] == ([body] if body else [])


async def test_the_address_of_a_source(group: Group) -> None:
    heads: list[Any] = []

    def answer(frame: Frame) -> Frame:
        heads.append(frame.head)
        return Frame(MessageType.REPLY, frame.id, "s3://bucket/2")

    await group.add(answer)
    assert await model_of(group).resolve_source("s3://bucket/latest") == "s3://bucket/2"
    assert heads == [[KEY, "s3://bucket/latest"]]
