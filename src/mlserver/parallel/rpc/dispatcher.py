"""The answering end of a channel: a task per call, stopped when the caller takes the call back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ...errors import MLServerError
from .protocol import Frame, MessageType, pack_error

# Answers one call; the frame that it returns is sent.
RPCHandler = Callable[[Frame], Coroutine[Any, Any, Frame]]


class RPCDispatcher:
    """Answers the calls of one other process.

    Args:
        actions: What to do for each kind of call.
        send: Where answers go.
    """

    def __init__(self, actions: Mapping[int, RPCHandler], send: Callable[[Frame], None]) -> None:
        self._actions = actions
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, frame: Frame) -> bool:
        """Begin to answer a call. False: this frame is none."""
        action = self._actions.get(frame.kind)
        if action is not None:
            self._tasks[frame.id] = asyncio.get_running_loop().create_task(
                self._answer(action, frame)
            )
        elif frame.kind == MessageType.PING:
            self._send(Frame(MessageType.REPLY, frame.id, None))
        elif frame.kind == MessageType.CANCEL:
            task = self._tasks.pop(frame.id, None)
            if task is not None:
                task.cancel()
        else:
            return False
        return True

    def close(self) -> None:
        """The other process is gone: nobody waits for what it asked."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _answer(self, action: RPCHandler, frame: Frame) -> None:
        try:
            self._send(await action(frame))
        except BaseException as error:
            # Whatever it is, the caller waits; one who has cancelled the call ignores the answer. `SystemExit` and
            # `KeyboardInterrupt` would leave the loop.
            self._send_error(frame.id, error)
        finally:
            self._tasks.pop(frame.id, None)

    def _send_error(self, frame_id: int, error: BaseException) -> None:
        try:
            self._send(Frame(MessageType.ERROR, frame_id, pack_error(error)))
        except Exception:  # a field of the error cannot be sent
            text = f"An error of type {type(error).__name__} could not be sent"
            self._send(Frame(MessageType.ERROR, frame_id, pack_error(MLServerError(text, 500))))
