"""The server's connections to replicas: real ports of replicas, without a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mlserver.parallel.ray import replica_group
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
    replica, group = Replica(SECRET), ReplicaGroup("application", None)
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

    replica, group = Replica(SECRET), ReplicaGroup("application", wake)
    picking = asyncio.create_task(group.pick_worker(KEY))
    async with asyncio.timeout(30):
        await enough.wait()
        await connect(replica, group)
        assert await picking is group.clients[0]
    await group.close()
    await replica.listener.leave(0)
