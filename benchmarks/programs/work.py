"""The models' own work, the same in every server: a row sum, upper case, 5 ms with the GIL, 20 ms without it."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    """Burn 5 ms of this thread's CPU in Python code, which holds the GIL; then answer the values."""
    end = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < end:
        pass
    return np.asarray(values, dtype=np.float64)


def wait(values: Any) -> Any:
    """Take 20 ms without the GIL and without the CPU, as a call to a device or another service does."""
    time.sleep(WAIT_SECONDS)
    return np.asarray(values, dtype=np.float64)


# What a model answers to the list in its request's one input.
WORK: dict[str, Callable[[Any], Any]] = {"sum": row_sums, "text": upper, "busy": busy, "wait": wait}


def as_list(answer: Any) -> list[Any]:
    """An answer as JSON takes it."""
    return answer.tolist() if hasattr(answer, "tolist") else list(answer)
