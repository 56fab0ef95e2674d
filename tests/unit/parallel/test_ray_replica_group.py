"""The server's connections to replicas: real ports of replicas, without a cluster."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlserver.errors import Unavailable
from mlserver.parallel import remote_model
from mlserver.parallel.ray import replica_group
from mlserver.parallel.ray.handshake import prove_replica
from mlserver.parallel.ray.replica_group import RayModel, ReplicaGroup
from mlserver.pipeline import RequestContext
from mlserver.types import InferenceRequest, InferenceResponse

from .conftest import model_settings, request
from .in_process_cluster import KEY, Replica

SECRET = os.urandom(32)


async def connect(replica: Replica, group: ReplicaGroup) -> RayModel:
    """Return the model of a group that is connected to a replica."""
    info = await replica.start(model_settings())
    group.secret = SECRET
    group.update({"replica": replica.address})
    async with asyncio.timeout(30):
        while not group.clients:
            await group.wait_changed(1)
    return RayModel(group, KEY, info, None, _unload)


async def _unload(model: RayModel) -> bool:
    return True


async def send(text: str) -> AsyncIterator[InferenceRequest]:
    yield request(text)


def read_text(response: InferenceResponse) -> Any:
    return response.outputs[0].data[0]


async def test_a_replica_that_leaves_finishes_its_streams() -> None:
    """Ray removes replicas: the last response arrives after the replica has announced its end."""
    replica, group = Replica(SECRET), ReplicaGroup("application", None, lambda: True)
    model = await connect(replica, group)
    (client,) = group.clients
    stream = model.stream(send("echo"), RequestContext())
    texts = [read_text(await anext(stream))]
    leaving = asyncio.create_task(replica.listener.leave(30))
    async with asyncio.timeout(30):
        await client.left.wait()
        texts += [read_text(response) async for response in stream]
        await leaving
    assert texts == ["echo", "echo"]
    assert not group.clients
    await group.close()


async def test_a_request_that_waits_asks_for_a_replica_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replica that the first demand has started may end before the server has seen it."""
    monkeypatch.setattr(replica_group, "WAKE_INTERVAL", 0.01)
    demanded, enough = 0, asyncio.Event()

    def wake() -> None:
        nonlocal demanded
        demanded += 1
        if demanded == 3:
            enough.set()

    replica, group = Replica(SECRET), ReplicaGroup("application", wake, lambda: True)
    picking = asyncio.create_task(group.pick_worker(KEY))
    async with asyncio.timeout(30):
        await enough.wait()
        await connect(replica, group)
        assert await picking is group.clients[0]
    await group.close()
    await replica.listener.leave(0)


async def test_without_a_cluster_no_replica_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is not ready; requests get the reason after the wait for a replacement."""
    monkeypatch.setattr(remote_model, "REPLACEMENT_WAIT", 0.01)
    monkeypatch.setattr(replica_group, "WAKE_INTERVAL", 0.01)
    is_answered, woken = True, asyncio.Event()
    replica = Replica(SECRET)
    group = ReplicaGroup("application", woken.set, lambda: is_answered)
    info = await replica.start(model_settings())
    model = RayModel(group, KEY, info, None, _unload)
    assert model.available
    running = asyncio.create_task(model.infer(request("echo:1"), RequestContext()))
    async with asyncio.timeout(30):
        await woken.wait()
        is_answered = False
        with pytest.raises(Unavailable, match="the Ray cluster does not answer to start one"):
            await running
    assert not model.available
    await group.close()
    await replica.listener.leave(0)


async def test_a_connection_that_is_cancelled_before_its_answer_is_closed() -> None:
    """The replica has accepted it, and computes: the model is unloaded meanwhile."""
    loop, group = asyncio.get_running_loop(), ReplicaGroup("application", None, lambda: True)
    group.secret = SECRET
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        group.update({"replica": listener.getsockname()})
        async with asyncio.timeout(30):
            end, _ = await loop.sock_accept(listener)
            with end:
                await prove_replica(end, SECRET)
                assert await loop.sock_recv(end, 1)  # INIT
                await group.close()
                while await loop.sock_recv(end, 1024):  # until the end of the connection
                    continue
