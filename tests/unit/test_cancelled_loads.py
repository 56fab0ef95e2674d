"""An unload cancels the loads of its model that wait or run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.handlers.model_repository import ModelRepositoryHandlers
from mlserver.parallel.executor import LoadedModel
from mlserver.registry.pending_loads import LoadCancelled
from mlserver.settings import ModelSettings
from support.inline_pipeline import StaticRepository
from support.pipeline import Bench, model_settings, tag_of

LIMIT = 30.0


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def until_loading(bench: Bench, loads: int = 1) -> None:
    """Wait until so many loads have begun."""
    async with asyncio.timeout(LIMIT):
        while bench.executor.waiting < loads:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0)


async def test_a_first_load(bench: Bench) -> None:
    bench.executor.go.clear()
    loads = [begin(bench.load()) for _ in range(3)]
    await until_loading(bench)
    async with asyncio.timeout(LIMIT):
        await bench.registry.unload("m", None)
        errors = await asyncio.gather(*loads, return_exceptions=True)

    assert [(type(error), getattr(error, "status_code", 0)) for error in errors] == [
        (LoadCancelled, 409)
    ] * 3
    assert (bench.registry.entries(), bench.executor.waiting) == ([], 0)
    bench.executor.go.set()
    model = await bench.load()
    assert tag_of(await bench.ask()) == model.tag


async def test_a_reload(bench: Bench) -> None:
    """The model that serves is unloaded; a reload that waits for it ends as for any unload."""
    old = await bench.load()
    entry = bench.registry.find("m")
    bench.executor.go.clear()
    loading, reloading = begin(bench.load()), begin(bench.registry.reload(entry))
    await until_loading(bench)
    async with asyncio.timeout(LIMIT):
        await bench.registry.unload("m", None)
        with pytest.raises(LoadCancelled):
            await loading
        assert await reloading is False

    assert (old.unloaded, len(bench.executor.models), bench.registry.entries()) == (True, 1, [])


async def test_a_load_after_the_unload_is_not_cancelled(bench: Bench) -> None:
    bench.executor.go.clear()
    first = begin(bench.load())
    await until_loading(bench)
    unloading, second = begin(bench.registry.unload("m", None)), begin(bench.load())
    async with asyncio.timeout(LIMIT):
        await unloading
        bench.executor.go.set()
        await asyncio.wait([first])
        assert isinstance(first.exception(), LoadCancelled)
        model = await second
        assert tag_of(await bench.ask()) == model.tag


async def test_a_load_that_ends_with_its_cancellation(bench: Bench) -> None:
    """It was loaded: then it is unloaded, and nothing of it remains."""
    bench.executor.go.clear()
    loading = begin(bench.load())
    await until_loading(bench)
    bench.executor.go.set()
    async with asyncio.timeout(LIMIT):
        await bench.registry.unload("m", None)
        await asyncio.wait([loading])
    assert all(model.unloaded for model in bench.executor.models)
    assert bench.registry.entries() == []


async def test_all_versions(bench: Bench) -> None:
    """No load of a version begins when the one before it is cancelled."""
    versions = [model_settings("m", "1"), model_settings("m", "2")]
    handlers = ModelRepositoryHandlers(StaticRepository(versions), bench.registry)
    bench.executor.go.clear()
    loading = begin(handlers.load("m"))
    await until_loading(bench)
    async with asyncio.timeout(LIMIT):
        assert await handlers.unload("m")
        with pytest.raises(LoadCancelled):
            await loading
    bench.executor.go.set()
    assert (bench.registry.entries(), bench.executor.models) == ([], [])


async def test_other_models_and_versions(bench: Bench) -> None:
    await bench.load("m", "1")
    await bench.load("n")
    bench.executor.go.clear()
    loads = [begin(bench.load("m", "2")), begin(bench.load("n"))]
    await until_loading(bench, 2)
    async with asyncio.timeout(LIMIT):
        unloading = begin(bench.registry.unload("m", "1"))
        await asyncio.sleep(0)
        bench.executor.go.set()
        await asyncio.gather(unloading, *loads)
    names = sorted((entry.name, entry.version) for entry in bench.registry.entries())
    assert names == [("m", "2"), ("n", None)]


async def test_an_executor_whose_loads_cannot_be_cancelled(bench: Bench) -> None:
    bench.executor.can_cancel_load = False
    bench.executor.go.clear()
    loading = begin(bench.load())
    await until_loading(bench)
    unloading = begin(bench.registry.unload("m", None))
    await asyncio.sleep(0)
    bench.executor.go.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(loading, unloading)
    assert [model.unloaded for model in bench.executor.models] == [True]


async def test_a_caller_that_is_cancelled_is_not_an_unload(bench: Bench) -> None:
    bench.executor.go.clear()
    loading = begin(bench.load())
    await until_loading(bench)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading


async def test_a_timeout_of_the_load_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(settings: ModelSettings) -> LoadedModel:
        raise TimeoutError("the store did not answer")

    monkeypatch.setattr(bench.executor, "load", load)
    with pytest.raises(MLServerError, match="the store did not answer") as raised:
        await bench.load()
    assert not isinstance(raised.value, LoadCancelled)


async def test_no_lock_of_a_name_remains(bench: Bench) -> None:
    for number in range(50):
        await bench.load(f"m{number}")
        await bench.registry.unload(f"m{number}", None)
        with pytest.raises(ModelNotFound):
            await bench.registry.unload(f"unknown{number}", None)
    gc.collect()
    assert len(bench.registry._locks) == 0
