"""The executor of a Ray cluster: loads and unloads of several servers that share replicas."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.ray import agent as agent_module
from mlserver.parallel.ray import agent_process
from mlserver.parallel.ray import executor as executor_module
from mlserver.pipeline import RequestContext
from mlserver.settings import ModelSettings

from .conftest import model_settings, request
from .in_process_cluster import ClusterServer, InProcessCluster, until

MODEL = "m\0"


@pytest.fixture
async def cluster() -> AsyncIterator[InProcessCluster]:
    cluster = InProcessCluster()
    yield cluster
    await cluster.close()


@pytest.fixture
async def first(cluster: InProcessCluster) -> AsyncIterator[ClusterServer]:
    server = ClusterServer(cluster)
    yield server
    await server.close()


@pytest.fixture
async def second(cluster: InProcessCluster) -> AsyncIterator[ClusterServer]:
    server = ClusterServer(cluster)
    yield server
    await server.close()


def fail_at(name: str) -> Callable[[str], None]:
    """Return a function for `on_call` that fails after this method."""

    def fail(method: str) -> None:
        if method == name:
            raise OSError("the directory does not answer")

    return fail


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_failed_adoption_leaves_the_model_of_other_servers(
    cluster: InProcessCluster,
    first: ClusterServer,
    second: ClusterServer,
    follows: bool,
    is_cancelled: bool,
) -> None:
    """Its commit fails, or the second server stops meanwhile."""
    model = await first.executor.load(model_settings())
    commits, ends = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def fail(method: str) -> None:
        if method == "use" or method == "commit":
            loop.call_soon_threadsafe(commits.set)
            if is_cancelled:
                ends.wait(30)
            raise OSError("the directory does not answer")

    if follows:
        second.executor._follower._adopted[MODEL] = model.group.application
    cluster.on_call = fail
    loading = asyncio.create_task(second.executor.load(model_settings()))
    async with asyncio.timeout(30):
        await commits.wait()
        cluster.on_call = lambda method: None
        if is_cancelled:
            loading.cancel()
        with pytest.raises((MLServerError, asyncio.CancelledError)):
            await loading
        ends.set()
    assert cluster.models == {MODEL: model.group.application}
    assert cluster.deleted == []
    response = await model.infer(request("echo:1"), RequestContext())
    assert response.outputs[0].data[0] == "1"
    assert second.executor._groups == {}


async def test_a_reload_whose_commit_has_no_answer_is_followed(
    cluster: InProcessCluster, first: ClusterServer
) -> None:
    """The directory has it already: no server may conclude that the model was unloaded."""
    older = await first.executor.load(model_settings())
    cluster.on_call = fail_at("commit")
    with pytest.raises(MLServerError, match="does not answer"):
        await first.executor.load(model_settings())
    cluster.on_call = lambda method: None
    application = cluster.models[MODEL]
    assert application != older.group.application
    assert cluster.deleted == []
    assert first.connection.agent._models[MODEL][0] == older.group.application
    first.executor._follower._adopted[MODEL] = application
    newer = await first.executor.load(model_settings())
    assert newer.group.application == application
    await older.unload()
    assert cluster.models == {MODEL: application}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_moved_address_is_loaded_beside_what_other_servers_use(
    cluster: InProcessCluster,
    first: ClusterServer,
    second: ClusterServer,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    """A server that starts finds replicas of an alias that has moved since."""
    model = await first.executor.load(model_settings())

    async def has_moved(*arguments: object) -> bool:
        return True

    monkeypatch.setattr(executor_module, "_has_moved", has_moved)
    seen: list[dict[str, str]] = []

    def fail(method: str) -> None:
        seen.append(cluster.models)
        if fails and method == "begin" and cluster.calls.count("begin") == 3:
            raise OSError("no place")

    cluster.on_call = fail
    if fails:
        with pytest.raises(MLServerError, match="no place"):
            await second.executor.load(model_settings())
        assert cluster.models == {MODEL: model.group.application}
        assert second.executor._current == {}
    else:
        newer = await second.executor.load(model_settings())
        assert cluster.models == {MODEL: newer.group.application}
        assert newer.group.application != model.group.application
    assert all(MODEL in models for models in seen)
    assert cluster.deleted == []


async def test_an_unload_and_a_reload_end_without_a_cluster(
    cluster: InProcessCluster, first: ClusterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has ended and does not connect: a wait for it would hold the model's lock."""
    model = await first.executor.load(model_settings())
    monkeypatch.setattr(agent_process, "CALL_LIMIT", 0.02)
    first.executor._agent._connected.clear()
    async with asyncio.timeout(30):
        with pytest.raises(MLServerError, match="cluster does not answer: call 'begin'") as load:
            await first.executor.load(model_settings())
        with pytest.raises(MLServerError, match="the log has the state of the connection"):
            await model.unload()
    assert load.value.status_code == 504
    assert first.executor._groups == {}
    assert cluster.models == {MODEL: model.group.application}  # other servers may use it


async def test_a_server_follows_only_a_cluster_that_answers(
    cluster: InProcessCluster,
    first: ClusterServer,
    second: ClusterServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And again as soon as it does, though the state is the same."""
    monkeypatch.setattr(agent_module, "POLL_INTERVAL", 0.01)
    loaded = asyncio.Event()

    async def load(settings: ModelSettings) -> None:
        await second.executor.load(settings)
        loaded.set()

    async def unload(name: str, version: str | None) -> None:
        raise AssertionError("no server has unloaded it")

    await second.poll()
    polling = asyncio.create_task(second.connection.agent._poll_forever())
    cluster.on_call = fail_at("poll")
    await until(lambda: not second.executor._is_answered())
    async with asyncio.timeout(30):
        second.executor.follow(load, unload)
        second.executor._follower.update({MODEL: ["of a cluster that is away", b""]})
        await asyncio.sleep(0)
        cluster.on_call = lambda method: None
        model = await first.executor.load(model_settings())
        await loaded.wait()
    assert second.executor._current == {MODEL: model.group.application}
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


async def test_an_unload_that_the_directory_misses_is_an_error(
    cluster: InProcessCluster, first: ClusterServer
) -> None:
    """The model stays in the directory, and with it in all servers."""
    model = await first.executor.load(model_settings())
    cluster.on_call = fail_at("drop")
    with pytest.raises(MLServerError, match="the directory does not answer"):
        await model.unload()
    assert first.executor._groups == {}
