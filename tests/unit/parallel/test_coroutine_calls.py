"""An unload ends the coroutines of the model that still run, before it calls `unload`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.executor import Executor, HTTPRequest, LoadedModel
from mlserver.parallel.in_process import InProcessExecutor
from mlserver.parallel.pool_manager import PoolExecutor
from mlserver.parallel.worker import coroutine_calls
from mlserver.pipeline import RequestContext
from mlserver.settings import ModelParameters, ModelSettings, Settings
from mlserver.types import InferenceRequest

from .conftest import request

LIMIT = 60.0
# Notes in its folder, in a file, what happens, in order.
SOURCE = """
import asyncio
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.custom_routes import custom_handler
from mlserver.types import InferenceResponse

FOLDER = Path(__file__).parent


def note(text):
    with open(FOLDER / "order", "a") as file:
        file.write(text + " ")


class Waits(MLModel):
    async def predict(self, payload):
        await self._wait()

    async def predict_stream(self, payloads):
        async for payload in payloads:
            await self._wait()
            yield

    @custom_handler(rest_path="/wait")
    async def wait(self) -> str:
        await self._wait()

    @custom_handler(rest_path="/function")
    def wait_in_a_thread(self) -> str:
        note("begun")
        while not (FOLDER / "go").exists():
            time.sleep(0.01)
        note("ended")
        return "done"

    async def _wait(self):
        note("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            note("ended")

    async def unload(self):
        note("unloaded")
        return True


class Refuses(Waits):
    async def _wait(self):
        note("begun")
        while not (FOLDER / "go").exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                note("cancelled")
        note("ended")
"""


@pytest.fixture(params=["inline", "pool"])
async def executor(request: pytest.FixtureRequest) -> AsyncIterator[Executor]:
    is_inline = request.param == "inline"
    created: Executor = (
        InProcessExecutor() if is_inline else PoolExecutor(Settings(parallel_workers=1))
    )
    await created.start()
    yield created
    await created.stop(5.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / f"waits_{tmp_path.name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def settings_of(folder: Path, kind: str = "Waits") -> ModelSettings:
    name = f"waits_{folder.name}.{kind}"
    return ModelSettings(name="m", implementation=name, parameters=ModelParameters())


def read_order(folder: Path) -> str:
    file = folder / "order"
    return file.read_text() if file.exists() else ""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a process
            await asyncio.sleep(0.01)


async def infer(model: LoadedModel) -> Any:
    return await model.infer(request("x"), RequestContext())


async def stream(model: LoadedModel) -> Any:
    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request("x")

    return [response async for response in model.stream(requests(), RequestContext())]


async def route(model: LoadedModel) -> Any:
    return await model.route(HTTPRequest("POST", "/wait"), RequestContext())


@pytest.mark.parametrize("call", [infer, stream, route])
async def test_coroutines_are_cancelled(executor: Executor, folder: Path, call: Any) -> None:
    model = await executor.load(settings_of(folder))
    running = asyncio.ensure_future(call(model))
    await until(lambda: read_order(folder) or running.done())
    async with asyncio.timeout(LIMIT):
        assert await model.unload()
        with pytest.raises(MLServerError, match=r"^Model m was unloaded before the") as raised:
            await running
    assert raised.value.status_code == 503
    assert read_order(folder) == "begun ended unloaded "


async def test_functions_are_waited_for(executor: Executor, folder: Path) -> None:
    model = await executor.load(settings_of(folder))
    request = HTTPRequest("POST", "/function")
    running = asyncio.ensure_future(model.route(request, RequestContext()))
    await until(lambda: read_order(folder) or running.done())
    unloading = asyncio.ensure_future(model.unload())
    await asyncio.sleep(0)
    (folder / "go").touch()
    async with asyncio.timeout(LIMIT):
        assert await unloading
        assert (await running).body == b'"done"'
    assert read_order(folder) == "begun ended unloaded "


async def test_a_coroutine_that_refuses_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(coroutine_calls, "END_LIMIT", 0.05)
    executor = InProcessExecutor()
    await executor.start()
    model = await executor.load(settings_of(folder, "Refuses"))
    running = asyncio.ensure_future(infer(model))
    await until(lambda: read_order(folder))
    async with asyncio.timeout(LIMIT):
        assert await model.unload()
    assert read_order(folder) == "begun cancelled unloaded "
    assert "'m': 1 calls have not ended within 0.05 s of their cancellation" in caplog.text
    (folder / "go").touch()
    await asyncio.wait([running], timeout=LIMIT)
    await executor.stop(5.0)
