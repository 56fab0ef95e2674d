"""Workers with calls and streams past their time limits: which are killed, and which are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlserver.errors import MLServerError, Unavailable
from mlserver.parallel import stuck_workers
from mlserver.parallel.pool_manager import PooledModel, PoolExecutor
from mlserver.parallel.worker_pool import WorkerPool
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceRequest, Parameters
from support.server import read_name

from .conftest import model_settings, request
from .test_worker_pool import LIMIT, ask, read_text, until

FAR_FUTURE = time.monotonic() + 1e9


@pytest.fixture
async def pool() -> AsyncIterator[PoolExecutor]:
    executor = PoolExecutor(Settings(parallel_workers=1, request_timeout=0.5))
    await executor.start()
    yield executor
    await executor.stop(5.0)


async def send_texts(texts: asyncio.Queue[str]) -> AsyncIterator[InferenceRequest]:
    while text := await texts.get():
        yield request(text)


def count_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_worker_that_a_stream_blocks_is_killed(
    pool: PoolExecutor, tmp_path: Path, leaves: bool
) -> None:
    """Also if the reader of the stream has left: the data plane leaves it at the time limit."""
    model = await pool.load(model_settings())
    before = pool.pids
    texts: asyncio.Queue[str] = asyncio.Queue()
    texts.put_nowait(f"block:{tmp_path / 'blocks'}")
    answers = model.stream(send_texts(texts), RequestContext())
    reading = asyncio.ensure_future(anext(answers))
    await until((tmp_path / "blocks").exists)
    if leaves:
        reading.cancel()
    await until(lambda: bool(pool.pids) and pool.pids != before)
    with pytest.raises(asyncio.CancelledError if leaves else Unavailable):
        await reading
    assert await ask(model, "echo:a") == "a"


async def test_a_stream_is_overdue_while_its_model_computes_only(pool: PoolExecutor) -> None:
    """Neither while the model waits for a request, nor while the caller handles a response."""
    model = await pool.load(model_settings())
    ((_, worker),) = pool.workers
    texts: asyncio.Queue[str] = asyncio.Queue()
    answers = model.stream(send_texts(texts), RequestContext())
    async with asyncio.timeout(LIMIT):
        texts.put_nowait("linger")
        assert read_text(await anext(answers)) == "linger"
        assert not worker.has_overdue_call(FAR_FUTURE)
        reading = asyncio.ensure_future(anext(answers))
        await until(lambda: worker.has_overdue_call(FAR_FUTURE))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        texts = asyncio.Queue()
        answers = model.stream(send_texts(texts), RequestContext())
        texts.put_nowait("a")
        assert [read_text(await anext(answers)) for _ in range(2)] == ["a", "a"]
        reading = asyncio.ensure_future(anext(answers))
        await until(lambda: not worker.has_overdue_call(FAR_FUTURE))
        texts.put_nowait("")
        with pytest.raises(StopAsyncIteration):
            await reading
    assert not worker.has_overdue_call(FAR_FUTURE)


async def test_a_worker_that_reacts_is_pinged_once_for_a_cancelled_call(
    pool: PoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later import or load may block the worker for a second: it is not killed for that."""
    monkeypatch.setattr(stuck_workers, "PING_TIMEOUT", LIMIT)
    model = await pool.load(model_settings("Plain"))
    ((_, worker),) = pool.workers
    (tmp_path / "wait").touch()
    before = count_threads(worker.pid)
    call = asyncio.ensure_future(ask(model, str(tmp_path / "wait")))
    await until(lambda: count_threads(worker.pid) > before)  # that of the function
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert worker.has_overdue_call(FAR_FUTURE)
    await until(lambda: not worker.has_overdue_call(FAR_FUTURE))
    assert model.abandoned_calls == 1
    (tmp_path / "wait").unlink()
    await until(lambda: model.abandoned_calls == 0)


# -- workers that receive no further requests --


async def test_a_retired_worker_that_does_not_react_is_killed(
    pool: PoolExecutor, tmp_path: Path
) -> None:
    model = await pool.load(model_settings())
    ((_, worker),) = pool.workers
    texts: asyncio.Queue[str] = asyncio.Queue()
    texts.put_nowait(f"block:{tmp_path / 'blocks'}")
    reading = asyncio.ensure_future(anext(model.stream(send_texts(texts), RequestContext())))
    await until((tmp_path / "blocks").exists)
    assert isinstance(model, PooledModel)
    model.pool._retire(worker)
    with pytest.raises(Unavailable):
        await reading
    await until(lambda: not read_name(worker.pid))


async def test_a_retired_worker_does_not_wait_for_a_call_without_caller(
    pool: PoolExecutor, tmp_path: Path
) -> None:
    model = await pool.load(model_settings("Plain"))
    ((_, worker),) = pool.workers
    (tmp_path / "wait").touch()
    call = asyncio.ensure_future(ask(model, str(tmp_path / "wait")))
    await until(lambda: worker.in_flight == 1)
    assert isinstance(model, PooledModel)
    model.pool._retire(worker)
    call.cancel()
    await until(lambda: not read_name(worker.pid))


class SilentListener:
    """HTTP workers that never report a worker as released."""

    def on_workers_changed(self) -> None:
        return

    async def wait_model_released(self, key: str) -> None:
        await asyncio.Event().wait()

    async def wait_worker_released(self, number: int) -> None:
        await asyncio.Event().wait()


async def test_a_pool_stops_its_retired_workers() -> None:
    pool = WorkerPool(1, Settings(parallel_workers=1), listener=SilentListener())
    await pool.start()
    (worker,) = pool.workers
    pool._retire(worker)
    async with asyncio.timeout(LIMIT):
        await pool.stop(5.0)
    assert not read_name(worker.pid)


# -- what a stream's requests raise --


async def raise_lost() -> AsyncIterator[InferenceRequest]:
    yield request("a")
    raise OSError("connection lost")


async def send_invalid() -> AsyncIterator[InferenceRequest]:
    invalid = request("a")
    invalid.parameters = Parameters(k=2**70)
    yield invalid


@pytest.mark.parametrize(
    "requests, kind, text",
    [(raise_lost, OSError, "connection lost"), (send_invalid, MLServerError, "cannot be serial")],
)
async def test_a_request_that_cannot_be_read_or_sent_ends_the_stream(
    pool: PoolExecutor, requests: object, kind: type[Exception], text: str
) -> None:
    model = await pool.load(model_settings())
    assert callable(requests)
    answers = model.stream(requests(), RequestContext())
    with pytest.raises(kind, match=text):
        async with asyncio.timeout(LIMIT):
            [answer async for answer in answers]
    assert await ask(model, "echo:a") == "a"
