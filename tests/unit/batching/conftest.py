"""Runs the tests of this folder in virtual time.

Timers fire at once and in order, and durations are exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from mlserver.batching.admission import AdmissionPolicy
from mlserver.batching.queue import BatchPolicy
from support.scheduler_bench import LIMIT, Bench
from support.virtual_time import VirtualTimeLoop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: object, item: object) -> Mapping[str, Any]:
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(
        policy: BatchPolicy = BatchPolicy(8),  # noqa: B008 - frozen
        limits: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008 - frozen
        capacity: int = 1,
    ) -> Bench:
        benches.append(Bench(policy, limits, capacity))
        return benches[-1]

    yield make
    for bench in benches:
        async with asyncio.timeout(LIMIT):
            await bench.scheduler.drained()
            await asyncio.gather(*bench.callers, return_exceptions=True)
        assert (bench.scheduler.waiting, bench.scheduler.in_flight) == (0, 0)
