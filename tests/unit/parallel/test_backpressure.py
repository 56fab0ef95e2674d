"""Requests to workers that do not read: the bytes that wait for one worker are bounded."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from mlserver.parallel.executor import LoadedModel, ModelInfo
from mlserver.parallel.pool_manager import PoolExecutor
from mlserver.parallel.remote_model import RemoteModel, WorkerGroup
from mlserver.parallel.rpc.client import RPCClient
from mlserver.parallel.rpc.connection import HIGH_WATER, FramedConnection, open_connection
from mlserver.parallel.rpc.protocol import Frame, MessageType, pack_response
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

from .conftest import model_settings, request

LIMIT = 60.0
KEY = "m#1"
LARGE = 10_000_000  # bytes of one request


class Group(WorkerGroup[RPCClient]):
    def add(self, worker: RPCClient) -> None:
        worker.model_keys.add(KEY)
        self._ready.append(worker)
        self._announce()


class Peer:
    """The other end of a worker's connection, which reads nothing until `read` is called."""

    def __init__(self) -> None:
        self.client = RPCClient(lambda frame: None)
        self._end: socket.socket | None = None
        self.connection: FramedConnection | None = None
        self.answered = 0

    async def open(self) -> RPCClient:
        end, self._end = socket.socketpair()
        await self.client.open(end)
        return self.client

    async def read(self) -> None:
        assert self._end is not None
        self.connection = await open_connection(self._end, self._answer, lambda reason: None)
        self._end = None

    def _answer(self, frame: Frame) -> None:
        if frame.kind != MessageType.INFER:
            return
        self.answered += 1
        assert self.connection is not None
        values = pack_response(InferenceResponse(model_name="m", outputs=[]), [])
        self.connection.send(Frame(MessageType.REPLY, frame.id, [0, values]))

    def close(self) -> None:
        self.client.abort()
        if self._end is not None:
            self._end.close()
        if self.connection is not None:
            self.connection.abort()


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    peers = [Peer(), Peer()]
    yield peers
    for peer in peers:
        peer.close()
    await asyncio.sleep(0)  # the transports close in callbacks


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def remote_model(group: Group) -> RemoteModel:
    metadata = MetadataModelResponse(name="m", platform="", inputs=[], outputs=[])
    return RemoteModel(group, KEY, ModelInfo(metadata), None)


def large_request() -> InferenceRequest:
    return request("echo:" + "x" * LARGE)


async def abandon(model: LoadedModel | RemoteModel, count: int) -> None:
    """Send large requests whose clients disconnect before the worker has read them."""
    for _ in range(count):
        call = asyncio.ensure_future(model.infer(large_request(), RequestContext()))
        for _ in range(5):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})


async def test_requests_to_a_worker_that_does_not_read_wait_unsent(
    peers: list[Peer], traced: None
) -> None:
    group = Group()
    group.add(await peers[0].open())
    model = remote_model(group)
    before = tracemalloc.get_traced_memory()[0]
    await abandon(model, 20)
    assert tracemalloc.get_traced_memory()[0] - before < HIGH_WATER + 3 * LARGE

    async with asyncio.timeout(LIMIT):
        waiting = [asyncio.ensure_future(model.infer(request("a"), RequestContext()))]
        await asyncio.sleep(0)
        await peers[0].read()
        await asyncio.gather(*waiting)
    assert peers[0].answered == 2  # the first one, whose client has left, and the last one


async def test_a_worker_that_reads_gets_the_requests(peers: list[Peer]) -> None:
    group = Group()
    for peer in peers:
        group.add(await peer.open())
    await peers[1].read()
    model = remote_model(group)
    await abandon(model, 1)
    assert peers[0].client.is_backed_up
    async with asyncio.timeout(LIMIT):
        # More at a time than the calls that the other worker has not answered.
        calls = [model.infer(request("a"), RequestContext()) for _ in range(20)]
        await asyncio.gather(*calls)
    assert (peers[0].answered, peers[1].answered) == (0, 20)


async def test_a_replacement_gets_the_requests_that_wait(peers: list[Peer]) -> None:
    group = Group()
    group.add(await peers[0].open())
    model = remote_model(group)
    await abandon(model, 1)
    waiting = asyncio.ensure_future(model.infer(request("a"), RequestContext()))
    await asyncio.sleep(0)
    group.add(await peers[1].open())
    await peers[1].read()
    async with asyncio.timeout(LIMIT):
        await waiting
    assert peers[1].answered == 1


async def test_items_of_streams_wait_unsent(peers: list[Peer]) -> None:
    peer = peers[0]
    client = await peer.open()

    async def items() -> AsyncIterator[InferenceRequest]:
        yield large_request()

    client.send(Frame(MessageType.PING, 0, "x" * LARGE))
    assert client.is_backed_up
    stream = client.stream({"key": KEY}, items())
    opened = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    frame_id = next(iter(client._streams))
    client._on_frame(Frame(MessageType.PULL, frame_id, None))
    before = client._connection._transport.get_write_buffer_size()  # type: ignore[union-attr]
    for _ in range(5):
        await asyncio.sleep(0)
    after = client._connection._transport.get_write_buffer_size()  # type: ignore[union-attr]
    assert after == before
    opened.cancel()
    await asyncio.wait({opened})


async def test_a_stopped_worker_process(traced: None) -> None:
    executor = PoolExecutor(Settings(parallel_workers=1))
    await executor.start()
    try:
        model = await executor.load(model_settings())
        (pid,) = executor.pids
        os.kill(pid, signal.SIGSTOP)
        before = tracemalloc.get_traced_memory()[0]
        try:
            await abandon(model, 20)
            assert tracemalloc.get_traced_memory()[0] - before < HIGH_WATER + 3 * LARGE
        finally:
            os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(LIMIT):
            response = await model.infer(request("echo:a"), RequestContext())
        assert response.outputs[0].data.root == ["a"]
    finally:
        await executor.stop(5.0)


async def test_a_stopped_worker_process_is_killed_for_its_streams_alone() -> None:
    """Their requests may fill its connection, and no other request is sent to it then."""
    executor = PoolExecutor(Settings(parallel_workers=1, request_timeout=0.2))
    await executor.start()
    try:
        model = await executor.load(model_settings())
        (pid,) = executor.pids
        os.kill(pid, signal.SIGSTOP)
        reading = asyncio.ensure_future(anext(model.stream(_no_requests(), RequestContext())))
        await asyncio.sleep(0)
        reading.cancel()
        async with asyncio.timeout(LIMIT):
            await asyncio.wait({reading})
            while pid in executor.pids or not executor.pids:  # noqa: ASYNC110 - of processes
                await asyncio.sleep(0.01)
    finally:
        await executor.stop(5.0)


async def test_a_stream_that_its_caller_has_left_is_overdue_until_it_ends(
    peers: list[Peer],
) -> None:
    client = await peers[0].open()
    for end in (Frame(MessageType.ERROR, 0, {}), Frame(MessageType.END, 0, None)):
        reading = asyncio.ensure_future(anext(client.stream({"key": KEY}, _no_requests(), 1.0)))
        await asyncio.sleep(0)
        (end.id,) = client._streams
        reading.cancel()
        await asyncio.wait({reading})
        assert client.has_overdue_call(time.monotonic() + 2.0)
        client._on_frame(end)
        assert not client.has_overdue_call(time.monotonic() + 2.0)


async def _no_requests() -> AsyncIterator[InferenceRequest]:
    await asyncio.Event().wait()
    yield request("")
