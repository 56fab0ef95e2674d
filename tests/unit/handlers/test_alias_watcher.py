"""The alias watcher: it survives errors, and ends with its model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mlserver.handlers import alias_watcher
from mlserver.handlers.alias_watcher import AliasWatcher
from mlserver.registry import ModelVersion
from mlserver.settings import ModelParameters
from support.pipeline import Bench, Model, model_settings

URI = "models:/m@live"


class Watched:
    """A watched model whose alias points to `version`; resolving waits for `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = Bench()
        self.watcher = AliasWatcher(self.bench.registry)
        self.version = "models:/m/1"
        self.error: Exception | None = None
        self.resolving, self.go = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(Model, "resolve_source", self._resolve)
        monkeypatch.setattr(alias_watcher, "get_source", lambda _: "models:/m/1")

    async def _resolve(self, _: str) -> str:
        self.resolving.set()
        await self.go.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.version

    async def load(self) -> ModelVersion:
        settings = model_settings()
        settings.parameters = ModelParameters(uri=URI, extra={"follow": 0.001})
        entry = await self.bench.registry.load(settings)
        assert entry.loaded is not None
        self.watcher.watch(entry, entry.loaded)
        return entry


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the watcher has no event for the end of a poll
            await asyncio.sleep(0.001)


async def test_a_model_that_is_unloaded_while_its_alias_is_resolved(watched: Watched) -> None:
    await watched.load()
    watched.version = "models:/m/2"
    await watched.resolving.wait()
    await watched.bench.registry.unload("m", None)
    watched.go.set()
    await until(lambda: not watched.watcher.states)
    assert (watched.bench.registry.entries(), len(watched.bench.executor.models)) == ([], 1)


async def test_exceptions_do_not_end_the_polling(watched: Watched) -> None:
    entry = await watched.load()
    watched.error, watched.version = OSError("no route"), "models:/m/2"
    watched.bench.executor.load_error = OSError("no space")
    watched.go.set()
    await until(lambda: bool(entry.reason))
    assert (entry.ready, "no space" in entry.reason) == (True, True)
    assert "no space" in watched.watcher.states[entry].failure
    await watched.watcher.stop()
