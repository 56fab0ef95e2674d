"""The current model: set for a block, its tasks and its threads, and reset afterwards."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from mlserver.context import current_model, model_context, model_name_var, model_version_var
from mlserver.settings import ModelParameters, ModelSettings

WINE = ModelSettings(name="wine", implementation="a.B", parameters=ModelParameters(version="2"))
PLAIN = ModelSettings(name="plain", implementation="a.B")


def test_outside_of_a_model() -> None:
    assert current_model() is None
    with pytest.raises(LookupError):
        model_name_var.get()


def test_a_block_and_a_block_inside() -> None:
    with model_context(WINE):
        assert (model_name_var.get(), model_version_var.get()) == ("wine", "2")
        with model_context(PLAIN):
            assert current_model() == ("plain", "")
        assert current_model() == ("wine", "2")
    assert current_model() is None


def test_an_error_resets_the_model() -> None:
    with pytest.raises(RuntimeError), model_context(WINE):
        raise RuntimeError
    assert current_model() is None


async def test_tasks_and_threads_of_a_model_belong_to_it() -> None:
    async def inner() -> tuple[str, str] | None:
        return current_model()

    with model_context(WINE):
        task = asyncio.create_task(inner())
        thread = asyncio.to_thread(current_model)
        assert await thread == ("wine", "2")
    assert await task == ("wine", "2")
    assert current_model() is None


async def test_a_block_that_exits_in_another_context() -> None:
    block = model_context(WINE)
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_model() is None
