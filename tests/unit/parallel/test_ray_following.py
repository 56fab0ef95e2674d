"""A server that follows the loads and unloads of other servers of a Ray cluster."""

from __future__ import annotations

import asyncio

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.ray import following
from mlserver.parallel.ray.following import Follower
from mlserver.settings import ModelSettings

from .conftest import model_settings

MODEL = "m\0"


@pytest.mark.parametrize(
    "error", [MLServerError("no place", 500), ValueError("a bug"), asyncio.CancelledError()]
)
async def test_a_load_that_fails_is_tried_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY", 0.01)
    own: dict[str, str] = {}
    attempts = 0
    loaded = asyncio.Event()

    async def load(settings: ModelSettings) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise error
        own[MODEL] = "application"
        loaded.set()

    async def unload(name: str, version: str | None) -> None:
        raise AssertionError("no server has unloaded it")

    follower = Follower(own, lambda: True)
    follower.start(load, unload)
    follower.update({MODEL: ["application", model_settings().to_frame()]})
    async with asyncio.timeout(30):
        await loaded.wait()
    assert follower._task is not None
    assert not follower._task.done()
    await follower.stop()
    assert follower._task.cancelled()
