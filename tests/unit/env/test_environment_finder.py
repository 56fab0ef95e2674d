"""Searches for environments: they end in time and with the server, and block nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.env.environment import compute_hash_of_file
from mlserver.errors import MLServerError
from mlserver.parallel.pool_manager import PoolExecutor
from mlserver.settings import ModelParameters, Settings

LIMIT = 60.0
# A `conda-unpack` that hangs, with a child that holds its output open.
HANGS = b"""
import os, pathlib, time
if os.fork():
    with open(pathlib.Path(__file__).parents[3] / "begun", "a") as file:
        file.write(f"{os.getpid()} ")
time.sleep(600)
"""


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    """An archive whose unpacking hangs."""
    python = tarfile.TarInfo("bin/python")
    python.type, python.linkname = tarfile.SYMTYPE, sys.executable
    script = tarfile.TarInfo("bin/conda-unpack")
    script.size = len(HANGS)
    with tarfile.open(tmp_path / "env.tar.gz", "w:gz") as archive:
        archive.addfile(python)
        archive.addfile(script, io.BytesIO(HANGS))
    return tmp_path / "env.tar.gz"


def create_executor(folder: Path, timeout: float | None = None) -> PoolExecutor:
    settings = Settings(
        parallel_workers=1, environments_dir=str(folder / "envs"), load_timeout=timeout
    )
    return PoolExecutor(settings)


def settings_of(tarball: Path) -> ModelSettings:
    parameters = ModelParameters(environment_tarball=str(tarball))
    return ModelSettings(name="m", implementation=MLModel, parameters=parameters)


@contextmanager
def lock(folder: Path, tarball: Path) -> Iterator[None]:
    """Hold the lock of an archive's environment, as another server does."""
    (folder / "envs").mkdir()
    with (folder / "envs" / f"{compute_hash_of_file(str(tarball))}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for happens to a process
            await asyncio.sleep(0.01)


async def get_error(load: Awaitable[Any]) -> BaseException:
    """Return how a load fails."""
    with pytest.raises((MLServerError, asyncio.CancelledError)) as raised:
        async with asyncio.timeout(LIMIT):
            await load
    return raised.value


async def test_a_stop_ends_a_search_and_those_that_wait_for_it(
    tmp_path: Path, tarball: Path
) -> None:
    executor = create_executor(tmp_path)
    loads = [asyncio.create_task(executor.load(settings_of(tarball))) for _ in range(3)]
    begun = tmp_path / "begun"
    await until(lambda: begun.exists() and begun.read_text().endswith(" "))
    await executor.stop(0.1)
    for load in loads:
        error = await get_error(load)
        assert isinstance(error, MLServerError)
        assert (error.status_code, "the server stops" in error.message) == (503, True)
    (pid,) = begun.read_text().split()  # the others have begun nothing
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert not [path for path in (tmp_path / "envs").iterdir() if path.is_dir()]


async def test_a_search_has_a_time_limit(tmp_path: Path, tarball: Path) -> None:
    executor = create_executor(tmp_path, 0.5)
    error = await get_error(executor.load(settings_of(tarball)))
    assert isinstance(error, MLServerError)
    assert (error.status_code, error.message) == (
        504,
        "The environment was not built within 0.5 s (setting 'load_timeout')",
    )
    await executor.stop(0.1)


async def test_another_server_that_holds_the_lock(tmp_path: Path, tarball: Path) -> None:
    executor = create_executor(tmp_path, 0.5)
    with lock(tmp_path, tarball):
        error = await get_error(executor.load(settings_of(tarball)))
    assert isinstance(error, MLServerError)
    assert error.status_code == 504
    await executor.stop(0.1)


async def test_searches_do_not_occupy_the_threads_of_requests(
    tmp_path: Path, tarball: Path
) -> None:
    executor = create_executor(tmp_path)
    with lock(tmp_path, tarball):
        count = 2 * ((os.cpu_count() or 1) + 4)  # threads of asyncio's executor, twice
        loads = [asyncio.create_task(executor.load(settings_of(tarball))) for _ in range(count)]
        await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT):
            assert await asyncio.to_thread(os.getpid) == os.getpid()
        await executor.stop(0.1)
    for load in loads:  # those without a thread are cancelled
        await get_error(load)


async def test_a_stop_ends_the_check_of_an_environment(tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nsleep 600\n")
    python.chmod(0o755)
    parameters = ModelParameters(environment_path=str(tmp_path / "env"))
    executor = create_executor(tmp_path)
    load = asyncio.create_task(
        executor.load(ModelSettings(name="m", implementation=MLModel, parameters=parameters))
    )
    await until((tmp_path / "begun").exists)
    await executor.stop(0.1)
    assert "the server stops" in str(await get_error(load))


async def test_a_cancelled_load_ends_its_search(tmp_path: Path, tarball: Path) -> None:
    """An unload cancels the load. Another model that needs the environment builds it then."""
    executor = create_executor(tmp_path)
    begun = tmp_path / "begun"

    def list_begun() -> list[str]:
        return begun.read_text().split(" ")[:-1] if begun.exists() else []

    load = asyncio.create_task(executor.load(settings_of(tarball)))
    await until(lambda: len(list_begun()) == 1)
    other = asyncio.create_task(executor.load(settings_of(tarball)))
    load.cancel()
    await get_error(load)
    await until(lambda: len(list_begun()) == 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(list_begun()[0]), 0)
    await executor.stop(0.1)
    assert "the server stops" in str(await get_error(other))
