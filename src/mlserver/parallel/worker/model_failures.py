"""Converts everything that a model's code can raise into an error for the caller.

A model may raise `SystemExit`, a `BaseException` of a native library, an exception whose `str()`
raises, or an `MLServerError` with fields that cannot be serialized. The runner converts each of
them with `to_error`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ...errors import MAX_MESSAGE_CHARS, MLServerError, ModelFailed, format_exception, remove_paths
from ...logging import get_logger
from ..rpc.protocol import is_encodable

T = TypeVar("T")

logger = get_logger()

# Threads of `asyncio.to_thread`. The standard library's default, 4 more than the processors, is too
# few for coroutines that wait in them.
TO_THREAD_LIMIT = 64
# Characters.
_MAX_LOGGED_TRACEBACK = 64 * 1024
_MAX_SENT_TRACEBACK = 8 * 1024


def is_stop(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether the call was cancelled from outside, not ended by the model's code.

    Args:
        error: What the call raised.
        task: The task that made the call.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    # A coroutine that is discarded with its loop is closed by another task, or outside of any task.
    return isinstance(error, GeneratorExit) and asyncio.current_task() is not task


def to_error(error: BaseException, what: str, level: int = logging.WARNING) -> MLServerError:
    """Return the error for the caller; log the traceback of all but `MLServerError`.

    Args:
        error: The exception of the model's code, not a cancellation (`is_stop`).
        what: The failed action, e.g. `Model wine failed to predict`.
        level: Log level of the traceback.
    """
    if isinstance(error, MLServerError):
        return plain_error(error)
    log(what, error, level)
    failure = ModelFailed(f"{what}: {remove_paths(format_exception(error))}")
    failure.traceback = _format_traceback(error)
    return failure


def _format_traceback(error: BaseException) -> str | None:
    """Return the end of a traceback; None if formatting the exception raises."""
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
        text.encode()
    except BaseException:
        return None
    return text[-_MAX_SENT_TRACEBACK:]


def log(what: str, error: BaseException, level: int = logging.WARNING) -> None:
    """Log a failure with its traceback, also if formatting the exception raises."""
    if not logger.isEnabledFor(level):
        return
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
        text.encode()
    except BaseException as second:
        logger.log(
            level, "%s: %s (no traceback: %s)", what, format_exception(error), type(second).__name__
        )
        return
    if len(text) <= _MAX_LOGGED_TRACEBACK:
        logger.log(level, "%s", what, exc_info=error)
    else:
        half = _MAX_LOGGED_TRACEBACK // 2
        logger.log(level, "%s\n%s\n[...]\n%s", what, text[:half], text[-half:].rstrip())


def plain_error(error: MLServerError) -> MLServerError:
    """Return the error, or a copy with serializable fields if a model's code has set others."""
    try:
        message, status, code = error.message, error.status_code, error.code
        message.encode()
        is_status = type(status) is int and 400 <= status <= 599
        if is_status and type(code) is str and len(message) <= 2 * MAX_MESSAGE_CHARS:
            if is_encodable(error.details):
                return error
            return MLServerError(message, status, code=code)
    except BaseException as second:
        logger.debug("An error of a model has invalid fields: %s", type(second).__name__)
    return MLServerError(remove_paths(format_exception(error)), 500)


class LoopThreads(concurrent.futures.ThreadPoolExecutor):
    """Threads of `asyncio.to_thread` on an event loop that runs models.

    Two exceptions become `RuntimeError`, as `StopIteration` in a coroutine does (PEP 479): asyncio
    rejects `StopIteration` as a future's result (before Python 3.12 the awaiting task never
    continues), and `GeneratorExit` closes the coroutines that await the future.
    """

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **options: Any
    ) -> concurrent.futures.Future[Any]:
        return super().submit(_call_function, function, args, options)


def _call_function(function: Callable[..., Any], args: Any, options: Any) -> Any:
    try:
        return function(*args, **options)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"a function raised {format_exception(error)}") from error


async def with_result(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine; convert exceptions that a future cannot hold to `MLServerError`."""
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise to_error(error, "A model failed") from error


def prepare_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Configure an event loop to run models' code."""
    loop.set_default_executor(LoopThreads(TO_THREAD_LIMIT, thread_name_prefix="asyncio"))


def run_protected(
    loop: asyncio.AbstractEventLoop, run: Callable[[], Any], is_over: Callable[[], bool]
) -> None:
    """Run an event loop, and continue when a model's task or callback ends it.

    `SystemExit` and `KeyboardInterrupt` of any task propagate out of asyncio's loop, which suspends
    all other tasks.

    Args:
        run: Runs the loop, e.g. `loop.run_forever`.
        is_over: Whether the loop was stopped on purpose.
    """
    while True:
        try:
            run()
            return
        except (SystemExit, KeyboardInterrupt) as error:
            if is_over() or loop.is_closed():
                raise
            log("Ignored: a model's task tried to end the process", error)
