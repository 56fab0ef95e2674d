"""RPC server: runs each call of a peer in a task and cancels it on CANCEL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ...errors import MLServerError
from .protocol import Frame, MessageType, pack_error

# Runs one call; the returned frame is sent to the caller.
RPCHandler = Callable[[Frame], Coroutine[Any, Any, Frame]]


class RPCDispatcher:
    """Runs the calls of one other process.

    Args:
        handlers: The handler of each kind of call.
        send: Sends a frame to the caller.
    """

    def __init__(self, handlers: Mapping[int, RPCHandler], send: Callable[[Frame], None]) -> None:
        self._handlers = handlers
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def dispatch(self, frame: Frame) -> bool:
        """Start or cancel a call; return False if the frame does neither."""
        handler = self._handlers.get(frame.kind)
        if handler is not None:
            task = asyncio.get_running_loop().create_task(self._run(handler, frame))
            self._tasks[frame.id] = task
        elif frame.kind == MessageType.PING:
            self._send(Frame(MessageType.REPLY, frame.id, None))
        elif frame.kind == MessageType.CANCEL:
            cancelled = self._tasks.pop(frame.id, None)
            if cancelled is not None:
                self._cancel(cancelled, frame.id)
        else:
            return False
        return True

    def _cancel(self, task: asyncio.Task[None], frame_id: int) -> None:
        work = task.get_coro()
        if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            # The call has arrived with its cancellation: the task ends without a first step, in
            # which it would answer, and the caller would wait for it until this process ends.
            self._send_error(frame_id, asyncio.CancelledError())
        task.cancel()

    def close(self) -> None:
        """Cancel all calls: the caller is gone."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _run(self, handler: RPCHandler, frame: Frame) -> None:
        try:
            self._send(await handler(frame))
        except BaseException as error:
            # Every call gets an answer; a caller that sent CANCEL ignores it. `SystemExit` and
            # `KeyboardInterrupt` of a model must not propagate to the event loop.
            self._send_error(frame.id, error)
        finally:
            self._tasks.pop(frame.id, None)

    def _send_error(self, frame_id: int, error: BaseException) -> None:
        try:
            self._send(Frame(MessageType.ERROR, frame_id, pack_error(error)))
        except Exception:  # a field of the error cannot be serialized
            text = f"An error of type {type(error).__name__} could not be sent"
            self._send(Frame(MessageType.ERROR, frame_id, pack_error(MLServerError(text, 500))))
