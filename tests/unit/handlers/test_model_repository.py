"""The repository index: states of models and their reasons."""

from __future__ import annotations

import asyncio

import pytest

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.handlers import ModelRepositoryHandlers
from mlserver.types import RepositoryIndexRequest, RepositoryIndexResponseItem
from support.inline_pipeline import StaticRepository
from support.pipeline import Bench, model_settings


class Repository:
    """A repository with the model `m`."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.handlers = ModelRepositoryHandlers(
            StaticRepository([model_settings()]), self.bench.registry
        )

    async def state(self) -> tuple[str, str]:
        (item,) = await self.handlers.index(RepositoryIndexRequest())
        return str(item.state), str(item.reason)


@pytest.fixture
async def repository() -> Repository:
    return Repository()


async def begun(work: asyncio.Future[bool], repository: Repository, state: str) -> None:
    """Wait until the index has the state, before `work` ends."""
    while (await repository.state())[0] != state:
        assert not work.done()
        await asyncio.sleep(0)


async def test_from_load_to_unload(repository: Repository) -> None:
    assert await repository.state() == ("UNAVAILABLE", "")
    repository.bench.executor.go.clear()
    loading = asyncio.ensure_future(repository.handlers.load("m"))
    await begun(loading, repository, "LOADING")
    repository.bench.executor.go.set()
    await loading
    assert await repository.state() == ("READY", "")

    (model,) = repository.bench.executor.models
    model.go.clear()
    call = asyncio.ensure_future(repository.bench.ask())
    await asyncio.sleep(0)
    unloading = asyncio.ensure_future(repository.handlers.unload("m"))
    await begun(unloading, repository, "UNLOADING")
    model.go.set()
    await asyncio.gather(call, unloading)
    assert await repository.state() == ("UNAVAILABLE", "")


async def test_the_reason_of_a_failure_lasts_until_the_next_load(repository: Repository) -> None:
    repository.bench.executor.load_error = MLServerError("no weights", 500)
    with pytest.raises(MLServerError):
        await repository.handlers.load("m")
    assert await repository.state() == ("UNAVAILABLE", "no weights")

    repository.bench.executor.go.clear()
    loading = asyncio.ensure_future(repository.handlers.load("m"))
    await begun(loading, repository, "LOADING")
    assert await repository.state() == ("LOADING", "")
    repository.bench.executor.go.set()
    await loading
    assert await repository.state() == ("READY", "")


async def test_an_exception_in_one_load_stops_no_other(repository: Repository) -> None:
    repository.bench.executor.load_error = PermissionError(13, "Permission denied")
    models = [model_settings("broken"), model_settings("m")]
    assert await repository.handlers.load_all(models) == 1
    states = {item.name: str(item.state) for item in await items(repository)}
    assert states == {"broken": "UNAVAILABLE", "m": "READY"}


async def items(repository: Repository) -> list[RepositoryIndexResponseItem]:
    return list(await repository.handlers.index(RepositoryIndexRequest()))


async def test_an_unload_of_a_model_of_which_a_version_is_unloaded_meanwhile() -> None:
    bench = Bench()
    handlers = ModelRepositoryHandlers(StaticRepository([]), bench.registry)
    for version in ("1", "2"):
        await bench.load("m", version)
    bench.executor.can_cancel_load = False
    bench.executor.go.clear()
    loading = asyncio.create_task(bench.load("m", "1"))
    while not bench.executor.waiting:  # noqa: ASYNC110 - a count
        await asyncio.sleep(0)
    other = asyncio.create_task(bench.registry.unload("m", "2"))
    unloading = asyncio.create_task(handlers.unload("m"))
    for _ in range(10):
        await asyncio.sleep(0)
    bench.executor.go.set()
    await asyncio.gather(loading, other)
    assert await unloading
    assert bench.registry.entries() == []
    with pytest.raises(ModelNotFound):
        await handlers.unload("m")


async def test_a_load_of_a_model_of_which_an_old_version_is_unloaded_meanwhile() -> None:
    bench = Bench()
    handlers = ModelRepositoryHandlers(StaticRepository([model_settings()]), bench.registry)
    first = await bench.load("m", "1")
    await bench.load("m", "2")
    first.go.clear()
    call = asyncio.create_task(bench.ask("m", "1"))
    loading = asyncio.create_task(handlers.load("m"))
    while "1" in [entry.version for entry in bench.registry.versions("m")]:  # noqa: ASYNC110
        await asyncio.sleep(0)  # until the load waits for the call of version 1
    other = asyncio.create_task(bench.registry.unload("m", "2"))
    await asyncio.sleep(0)
    first.go.set()
    await asyncio.gather(call, other)
    assert await loading
    assert [entry.version for entry in bench.registry.entries()] == [None]
