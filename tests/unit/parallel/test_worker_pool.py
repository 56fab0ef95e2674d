"""Worker pools: models in every worker, replacement of dead workers, notifications of workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mlserver import metrics
from mlserver.errors import MLServerError, Unavailable
from mlserver.parallel import load_watch, worker_pool
from mlserver.parallel.executor import LoadedModel
from mlserver.parallel.pool_manager import PooledModel, PoolExecutor
from mlserver.parallel.processes.exit_codes import describe_exit
from mlserver.parallel.processes.linux import WORKER, can_adopt
from mlserver.parallel.rpc.protocol import MessageType, pack_request
from mlserver.parallel.worker_pool import WorkerPool
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceRequest, InferenceResponse, Parameters
from support.server import read_name

from .conftest import model_settings, request

LIMIT = 60.0


@pytest.fixture
async def pool() -> AsyncIterator[PoolExecutor]:
    executor = PoolExecutor(Settings(parallel_workers=2))
    await executor.start()
    yield executor
    await executor.stop(5.0)


async def ask(model: LoadedModel, text: str) -> str:
    async with asyncio.timeout(LIMIT):
        return read_text(await model.infer(request(text), RequestContext()))


def read_text(response: InferenceResponse) -> str:
    return str(response.outputs[0].data.root[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for happens to a process
            await asyncio.sleep(0.01)


async def test_every_worker_holds_every_model(pool: PoolExecutor) -> None:
    model = await pool.load(model_settings())
    assert len(set(pool.pids)) == model.capacity == 2
    assert model.info.metadata.name == "m"

    # Both workers have one request in flight: the next one runs in either.
    waiting = [asyncio.ensure_future(ask(model, "wait:")) for _ in range(2)]
    await asyncio.sleep(0)
    assert int(await ask(model, "pid:")) in pool.pids
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_models_with_trials_are_loaded_by_different_workers_first(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first load makes a model's trials: with them on one worker the others would wait."""
    model = await pool.load(model_settings())
    assert isinstance(model, PooledModel)
    monkeypatch.setattr(worker_pool, "loads_first_alone", lambda settings: True)
    load_into, loads = WorkerPool._load_into, list[tuple[str, int]]()

    async def record(pool: WorkerPool, worker: Any, key: str, settings: Any) -> None:
        loads.append((key, worker.number))
        await load_into(pool, worker, key, settings)

    monkeypatch.setattr(WorkerPool, "_load_into", record)
    # Not through the executor, whose loads first wait for threads, and then do not start at once.
    workers = model.pool
    await asyncio.gather(*(workers.load(f"m#{10 + n}", model_settings()) for n in range(8)))
    first = dict(reversed(loads))
    assert sorted(Counter(first.values()).values()) == [4, 4]
    assert len(loads) == 16


async def test_the_least_busy_worker_is_picked(pool: PoolExecutor) -> None:
    """A request in flight sends the next ones to the other worker, whichever of the two is busy."""
    model = await pool.load(model_settings())
    first, second = (worker for _, worker in pool.workers)
    for busy, idle in ((first, second), (second, first)):
        waiting = asyncio.ensure_future(busy.call(MessageType.INFER, infer_head(model, "wait:")))
        await asyncio.sleep(0)
        assert busy.in_flight == 1
        assert [await ask(model, "pid:") for _ in range(3)] == [str(idle.pid)] * 3
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: busy.in_flight == 0)  # noqa: B023 - awaited in this iteration


def infer_head(model: LoadedModel, text: str) -> list[Any]:
    assert isinstance(model, PooledModel)
    return [model.key, None, (), None, (), pack_request(request(text), [])]


async def test_workers_are_light(pool: PoolExecutor) -> None:
    model = await pool.load(model_settings())

    assert (
        await ask(
            model,
            "modules:pandas,mlflow,uvicorn,starlette,fastapi,grpc,mlserver.rest,mlserver.server",
        )
        == ""
    )


@pytest.mark.parametrize("count", [1, 2])
async def test_killed_workers_are_replaced(pool: PoolExecutor, count: int) -> None:
    model = await pool.load(model_settings())
    before = pool.pids
    for pid in before[:count]:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(pool.pids) == 2 and not set(pool.pids) & set(before[:count]))

    assert await ask(model, "echo:a") == "a"
    assert model.available


@pytest.mark.parametrize("how, is_failed_start", [("raise-while", False), ("exit-while", True)])
async def test_a_replacement_that_ends_is_recorded_as_a_failed_start(
    pool: PoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    how: str,
    is_failed_start: bool,
) -> None:
    """Workers are not forked any more if forks end; a load that raises says nothing about forks."""
    broken = tmp_path / "broken"
    model = await pool.load(model_settings(load=how, file=str(broken)))
    assert isinstance(model, PooledModel)
    launcher, starts = model.pool.launcher, list[bool]()
    record_start = launcher.record_start

    def record(is_forked: bool, is_ready: bool) -> None:
        starts.append(is_ready)
        record_start(is_forked, is_ready)

    monkeypatch.setattr(launcher, "record_start", record)
    broken.touch()
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: "could not load model" in caplog.text)
    assert (False in starts) is is_failed_start
    broken.unlink()
    await until(lambda: len(pool.pids) == 2)
    assert starts[-1]
    assert await ask(model, "echo:a") == "a"


async def test_a_load_in_a_replacement_that_ends_is_repeated(
    pool: PoolExecutor, tmp_path: Path
) -> None:
    """The worker may have been killed from outside: the next one is not without the model."""
    file = tmp_path / "file"
    await pool.load(model_settings())
    await pool.load(model_settings(load="exit-once", file=str(file)))
    file.touch()
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: len(pool.pids) == 2 and not file.exists())
    assert [len(worker.model_keys) for _, worker in pool.workers] == [2, 2]


async def test_requests_of_a_killed_worker_are_answered(pool: PoolExecutor) -> None:
    model = await pool.load(model_settings())
    requests = [asyncio.ensure_future(ask(model, f"echo:{number}")) for number in range(50)]
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        answers = await asyncio.gather(*requests, return_exceptions=True)

    for number, answer in enumerate(answers):
        assert answer == str(number) or isinstance(answer, Unavailable)


async def test_a_request_that_ends_workers_is_given_up(pool: PoolExecutor) -> None:
    model = await pool.load(model_settings())
    with pytest.raises(Unavailable, match="Two worker processes ended while they ran this request"):
        await ask(model, "leave:")
    await until(lambda: len(pool.pids) == 2)

    assert await ask(model, "echo:a") == "a"


async def test_a_stream_is_not_retried(pool: PoolExecutor) -> None:
    model = await pool.load(model_settings())

    async def requests() -> AsyncIterator[InferenceRequest]:
        yield request("a")
        yield request("leave")

    answers: list[InferenceResponse] = []

    async def consume() -> None:
        async for answer in model.stream(requests(), RequestContext()):
            answers.append(answer)

    with pytest.raises(Unavailable, match="in the middle of this stream"):
        await consume()
    assert len(answers) == 2


async def test_a_worker_without_a_model_is_replaced_and_keeps_its_streams(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A replacement that could not load a model serves until there is one with all models."""
    monkeypatch.setattr(worker_pool, "FIRST_REPAIR", 0.1)
    broken = tmp_path / "broken"
    good = await pool.load(model_settings())
    other = await pool.load(model_settings(load="raise-while", file=str(broken)))
    broken.touch()
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(pool.pids) == 2 and good.available and not other.available)
    incomplete = set(pool.pids)

    texts: asyncio.Queue[str] = asyncio.Queue()

    async def requests() -> AsyncIterator[InferenceRequest]:
        while text := await texts.get():
            yield request(text)

    answers = good.stream(requests(), RequestContext())
    async with asyncio.timeout(LIMIT):
        texts.put_nowait("a")
        assert [read_text(await anext(answers)) for _ in range(2)] == ["a", "a"]
        broken.unlink()
        await until(lambda: other.available and not incomplete & set(pool.pids))
        texts.put_nowait("b")
        assert [read_text(await anext(answers)) for _ in range(2)] == ["b", "b"]
        texts.put_nowait("")
        assert [read_text(answer) async for answer in answers] == []
    await until(lambda: not any(map(read_name, incomplete)))


@pytest.mark.parametrize("how", ["block", "refuse-cancellation"])
async def test_a_load_that_ends_after_its_caller_has_left_is_undone(
    tmp_path: Path, how: str
) -> None:
    """Its model would stay in the memory of the worker."""
    file = tmp_path / "file"
    executor = PoolExecutor(Settings(parallel_workers=1))
    await executor.start()
    try:
        loading = asyncio.ensure_future(executor.load(model_settings(load=how, file=str(file))))
        await until(Path(f"{file}.loading").exists)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        # A worker that blocks reads the cancellation after the load, the other one before a ping.
        ((_, worker),) = executor.workers
        if how == "refuse-cancellation":
            await worker.call(MessageType.PING, None)
        file.touch()
        await until(Path(f"{file}.unloaded").exists)
    finally:
        await executor.stop(5.0)


async def test_a_load_that_ends_its_workers(pool: PoolExecutor) -> None:
    good = await pool.load(model_settings())
    with pytest.raises(
        MLServerError, match=r"Model m: the worker process ended \(exit code 3\) during the load"
    ):
        await pool.load(model_settings(load="exit"))
    await until(lambda: len(pool.pids) == 2)

    assert await ask(good, "echo:a") == "a"


@pytest.mark.skipif(not can_adopt(), reason="workers are not forked on this system")
async def test_a_load_that_hangs_in_forks_runs_in_new_interpreters(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load_watch, "IDLE_LIMIT", 1.0)
    async with asyncio.timeout(LIMIT):
        model = await pool.load(model_settings(load="hang-in-a-fork"))
    await until(lambda: len(pool.pids) == 2)

    assert await ask(model, "echo:a") == "a"
    assert "used no processor for 1 s of a load: killed" in caplog.text
    assert all(read_name(pid) != WORKER for pid in pool.pids)


@pytest.mark.skipif(not can_adopt(), reason="workers are not forked on this system")
async def test_a_reload_of_a_model_that_hangs_in_forks_does_not_fork_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each load of the model has a pool of its own."""
    monkeypatch.setattr(load_watch, "IDLE_LIMIT", 1.0)
    caplog.set_level(logging.INFO, "mlserver")
    executor = PoolExecutor(Settings(parallel_workers=1))
    hanging = model_settings(load="hang-in-a-fork")
    assert hanging.parameters is not None
    hanging.parameters.isolation = "model"
    async with asyncio.timeout(LIMIT):
        await executor.start()
        first = await executor.load(hanging)
        assert "used no processor for 1 s of a load: killed" in caplog.text
        caplog.clear()
        second = await executor.load(hanging)
        await first.unload()
        assert await ask(second, "echo:a") == "a"
        assert "killed" not in caplog.text
        assert "made no progress in a load, in an earlier pool of the model" in caplog.text
        await executor.stop(5.0)


async def test_metrics_reach_the_server(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[metrics.Sample] = []
    monkeypatch.setattr(metrics, "receive", received.append)
    model = await pool.load(model_settings())
    await ask(model, "log:7")
    await until(lambda: len(received) == 2)

    assert {(sample.name, sample.value) for sample in received} == {
        ("from_the_loop", 7.0),
        ("from_a_thread", 7.0),
    }


async def test_unserializable_values_are_refused_and_the_worker_stays_usable(
    pool: PoolExecutor,
) -> None:
    model = await pool.load(model_settings())
    invalid = request("echo:a")
    invalid.parameters = Parameters(k=2**70)
    with pytest.raises(MLServerError, match="cannot be serialized"):
        await model.infer(invalid, RequestContext())

    assert await ask(model, "echo:a") == "a"


async def test_stop_ends_all_workers(pool: PoolExecutor) -> None:
    await pool.load(model_settings())
    pids = pool.pids
    await pool.stop(5.0)

    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_stop_ends_the_loads_that_run(pool: PoolExecutor, tmp_path: Path) -> None:
    """They would wait for a new worker until `START_TIMEOUT`."""
    file = tmp_path / "go"
    load = asyncio.create_task(pool.load(model_settings(load="block", file=str(file))))
    await until(Path(f"{file}.loading").exists)
    await pool.stop(0.1)
    async with asyncio.timeout(LIMIT / 2):
        with pytest.raises(MLServerError, match="The worker processes are being stopped"):
            await load


@pytest.mark.parametrize(
    "code, text", [(0, "exit code 0"), (-9, "signal SIGKILL"), (-99, "signal 99")]
)
def test_exit_codes_as_text(code: int, text: str) -> None:
    assert describe_exit(code) == text
