"""Failed batches: which requests get the error, and which run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mlserver.errors import (
    InvalidInput,
    MLServerError,
    ModelFailed,
    Unavailable,
)
from support.scheduler_bench import (
    LIMIT,
    Bench,
    joined_with,
    values_of,
)


async def test_only_the_failing_request_of_a_batch_gets_the_error(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0, 3.0)
    run.fail(ModelFailed("a row is bad"))
    for value in (1.0, 2.0, 3.0):
        alone = await bench.stage.next()
        assert alone.values == [value]
        if value == 2.0:
            alone.fail(ModelFailed("mine"))
        else:
            alone.answer()

    assert await values_of(callers[0]) == [2.0]
    assert await values_of(callers[2]) == [6.0]
    with pytest.raises(ModelFailed, match="mine"):
        await callers[1]


@pytest.mark.parametrize(
    "error", [InvalidInput("x", "a", "b"), MLServerError("?", 422), MLServerError("?", 500)]
)
async def test_errors_that_one_request_may_cause_run_the_batch_one_by_one(
    make_bench: Callable[..., Bench], error: MLServerError
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.fail(error)
    for _ in callers:
        (await bench.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


async def test_errors_of_the_server_fail_the_whole_batch(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.fail(Unavailable("no worker"))

    for caller in callers:
        with pytest.raises(Unavailable, match="no worker"):
            await caller
    assert not bench.stage.runs


async def test_a_response_with_another_number_of_rows_is_not_split(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, 1.0, 2.0)
    run.answer(rows=1)
    for _ in callers:
        (await bench.stage.next()).answer()

    assert [await values_of(caller) for caller in callers] == [[2.0], [4.0]]


@pytest.mark.parametrize("count", [1, 2])
async def test_other_exceptions_become_internal_errors(
    make_bench: Callable[..., Bench], count: int
) -> None:
    bench = make_bench()
    callers, run = await joined_with(bench, *[1.0] * count)
    run.fail(ZeroDivisionError("x"))

    for caller in callers:
        with pytest.raises(MLServerError, match="ZeroDivisionError: x") as error:
            await caller
        assert error.value.status_code == 500


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_cancelled_next_stage_fails_every_caller(
    make_bench: Callable[..., Bench], count: int
) -> None:
    """A model may raise CancelledError, or its loop may be stopped: each caller gets an error."""
    bench = make_bench()
    if count:
        callers, run = await joined_with(bench, *[1.0] * count)
    else:
        callers = [bench.ask(1.0)]
        run = await bench.stage.next()
    run.fail(asyncio.CancelledError())

    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, MLServerError) for result in results)
