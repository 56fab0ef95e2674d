"""Computation of the models: row sums, upper case, 5 ms with the GIL, 20 ms without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

BUSY_SECONDS = 0.005
WAIT_SECONDS = 0.020


def row_sums(rows: Any) -> Any:
    """The sum of each row, FP32."""
    return np.asarray(rows, dtype=np.float32).sum(axis=1)


def upper(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


def busy(values: Any) -> Any:
    """Use 5 ms of CPU in Python code, which holds the GIL; return the values."""
    end = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < end:
        pass
    return np.asarray(values, dtype=np.float64)


def wait(values: Any) -> Any:
    """Wait 20 ms without the GIL, as for a device or another service; return the values."""
    time.sleep(WAIT_SECONDS)
    return np.asarray(values, dtype=np.float64)


# Name of the model -> its function of the request's input.
WORK: dict[str, Callable[[Any], Any]] = {"sum": row_sums, "text": upper, "busy": busy, "wait": wait}


# For programs whose server runs coroutines only: as many threads as connections are measured.
WAITING_THREADS = 64
_threads = ThreadPoolExecutor(WAITING_THREADS)


async def run(model: str, values: Any) -> Any:
    """Return the model's answer, computed in a thread if the model waits."""
    if model != "wait":
        return WORK[model](values)
    return await asyncio.get_running_loop().run_in_executor(_threads, wait, values)


def as_list(values: Any) -> list[Any]:
    """Return the values as a list, for JSON."""
    return values.tolist() if hasattr(values, "tolist") else list(values)
