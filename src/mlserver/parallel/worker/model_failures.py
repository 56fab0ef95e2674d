"""Every way in which a model's code can end, as an error that can be sent to the caller.

A model may raise anything: `SystemExit`, a `BaseException` of a native library, an exception whose `str()` raises, an
error of ours with fields that no frame can carry. The runner passes each of them through `to_error`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ...errors import LONGEST, MLServerError, ModelFailed, describe, without_paths
from ...logging import get_logger
from ..rpc.protocol import is_encodable

T = TypeVar("T")

logger = get_logger()

# Characters of a traceback in the log.
_LONGEST_TRACEBACK = 64 * 1024


def is_stop(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether the call was stopped from outside, rather than ended by the model's code.

    Args:
        error: What the call raised.
        task: The task that made the call.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    # A coroutine that is thrown away with its loop is closed by another task, or by none.
    return isinstance(error, GeneratorExit) and asyncio.current_task() is not task


def to_error(error: BaseException, what: str, level: int = logging.WARNING) -> MLServerError:
    """The error for the caller of a model. An error of ours is an answer; of all others the log has the traceback.

    Args:
        error: What the model's code raised, and what is no stop (`is_stop`).
        what: Which model failed at what, e.g. `Model wine failed to predict`.
        level: Of the traceback in the log.
    """
    if isinstance(error, MLServerError):
        return plain_error(error)
    log(what, error, level)
    return ModelFailed(f"{what}: {without_paths(describe(error))}")


def log(what: str, error: BaseException, level: int = logging.WARNING) -> None:
    """Log a failure with its traceback, whatever its exception does when it is printed."""
    if not logger.isEnabledFor(level):
        return
    import traceback

    try:
        lines = "".join(traceback.format_exception(error))
        lines.encode()
    except BaseException as second:
        logger.log(level, "%s: %s (no traceback: %s)", what, describe(error), type(second).__name__)
        return
    if len(lines) <= _LONGEST_TRACEBACK:
        logger.log(level, "%s", what, exc_info=error)
    else:
        half = _LONGEST_TRACEBACK // 2
        logger.log(level, "%s\n%s\n[...]\n%s", what, lines[:half], lines[-half:].rstrip())


def plain_error(error: MLServerError) -> MLServerError:
    """The error itself, or what can be sent of one that a model's code made in another way than ours does."""
    try:
        message, status, code = error.message, error.status_code, error.code
        message.encode()
        if (
            type(status) is int
            and 400 <= status <= 599
            and type(code) is str
            and len(message) <= 2 * LONGEST
        ):
            return (
                error if is_encodable(error.details) else MLServerError(message, status, code=code)
            )
    except BaseException as second:
        logger.debug("An error of a model has no plain fields: %s", type(second).__name__)
    return MLServerError(without_paths(describe(error)), 500)


class ModelThreads(concurrent.futures.ThreadPoolExecutor):
    """The threads of `asyncio.to_thread` on a loop that runs models.

    Two exceptions cannot be the result of a future, and become `RuntimeError`, as `StopIteration` of a coroutine does
    (PEP 479): asyncio refuses `StopIteration` (until Python 3.12 whoever awaits it waits forever), and `GeneratorExit`
    closes the coroutines that await it instead of being raised in them.
    """

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **options: Any
    ) -> concurrent.futures.Future[Any]:
        return super().submit(_with_result, function, args, options)


def _with_result(function: Callable[..., Any], args: Any, options: Any) -> Any:
    try:
        return function(*args, **options)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"a function raised {describe(error)}") from error


async def with_result(work: Coroutine[Any, Any, T]) -> T:
    """Await the work. What cannot be the result of a future, or would leave its loop, becomes an `MLServerError`."""
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise to_error(error, "A model failed") from error


def prepare_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Make an event loop fit to run models' code."""
    loop.set_default_executor(ModelThreads(thread_name_prefix="asyncio"))


def run_protected(
    loop: asyncio.AbstractEventLoop, run: Callable[[], Any], is_over: Callable[[], bool]
) -> None:
    """Run an event loop on when a task of a model's own, or a callback, ends it.

    asyncio lets `SystemExit` and `KeyboardInterrupt` of any task leave the loop, with all others in the middle.

    Args:
        run: Runs the loop, e.g. `loop.run_forever`.
        is_over: Whether the loop has ended because it was to.
    """
    while True:
        try:
            run()
            return
        except (SystemExit, KeyboardInterrupt) as error:
            if is_over() or loop.is_closed():
                raise
            log("Ignored: a task of a model tried to end the process", error)
