"""The agent of a Ray cluster: its states are never older than the server's own loads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mlserver.parallel.ray import agent as agent_module
from mlserver.parallel.ray.agent import ClusterAgent
from mlserver.parallel.rpc.protocol import Frame, MessageType

from .in_process_cluster import InProcessCluster, until


class Sent:
    """The connection to the server; keeps what is sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)

    @property
    def models(self) -> list[str]:
        """Models of the last state."""
        states = [frame.head for frame in self.frames if frame.kind == MessageType.CLUSTER_STATE]
        return sorted(states[-1]["models"])


@pytest.fixture
async def cluster() -> InProcessCluster:
    return InProcessCluster()


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def agent(cluster: InProcessCluster, sent: Sent) -> ClusterAgent:
    agent = ClusterAgent()
    agent._cluster, agent._connection = cluster, sent  # type: ignore[assignment]
    return agent


async def test_a_load_ends_after_the_state_with_its_model(agent: ClusterAgent, sent: Sent) -> None:
    older = asyncio.create_task(agent._poll())
    await asyncio.sleep(0)
    await agent._run_commit("m", "application", "digest", b"")
    assert sent.models == ["m"]
    await older
    assert sent.models == ["m"]


async def test_an_unload_ends_after_the_state_without_its_model(
    agent: ClusterAgent, sent: Sent
) -> None:
    await agent._run_commit("m", "application", "digest", b"")
    older = asyncio.create_task(agent._poll())
    await asyncio.sleep(0)
    await agent._run_drop("m", "application")
    await older
    assert sent.models == []


@pytest.mark.parametrize("moment", ["restore", "poll"])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_directory_that_restarts_again_loses_no_model(
    agent: ClusterAgent, cluster: InProcessCluster, sent: Sent, moment: str, count: int
) -> None:
    await agent._run_commit("m", "application", "digest", b"")
    await agent._poll()
    cluster.restarts_after = {"poll"}
    await agent._poll()  # answered by the process that ends
    cluster.restarts_after = {moment}
    await asyncio.gather(*(agent._poll() for _ in range(count)))
    await agent._poll()
    assert sent.models == ["m"]
    assert cluster.calls.count("restore") >= 1
    states = [frame.head["models"] for frame in sent.frames]
    assert all("m" in models for models in states)


@pytest.mark.parametrize("stuck", ["poll", "list_applications"])
async def test_a_cluster_that_hangs_is_reported(
    agent: ClusterAgent,
    cluster: InProcessCluster,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
    stuck: str,
) -> None:
    """A poll that hangs is one that fails; a check that hangs delays no poll."""
    monkeypatch.setattr(agent_module, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(agent_module, "POLL_TIMEOUT", 0.5)
    monkeypatch.setattr(agent_module, "STATUS_INTERVAL", 0.01)
    ends, is_stuck = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(method: str) -> None:
        if method == stuck and not ends.is_set():
            loop.call_soon_threadsafe(is_stuck.set)
            ends.wait(30)

    cluster.on_call = hang
    tasks = [asyncio.create_task(agent._poll_forever())]
    tasks.append(asyncio.create_task(agent._check_forever()))
    await until(is_stuck.is_set)
    polls = cluster.calls.count("poll")
    if stuck == "poll":
        await until(lambda: any(frame.head is None for frame in sent.frames))
    else:
        await until(lambda: cluster.calls.count("poll") >= polls + 3)
    ends.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
