"""Calls of a peer: every call has one answer, also one that is cancelled at once."""

from __future__ import annotations

import asyncio

from mlserver.parallel.rpc.dispatcher import RPCDispatcher
from mlserver.parallel.rpc.protocol import Frame, MessageType


async def run_calls(cancelled_after_steps: int) -> list[Frame]:
    """The answers to one call that waits, cancelled after some steps of the loop."""
    answers: list[Frame] = []

    async def wait(frame: Frame) -> Frame:
        await asyncio.Event().wait()
        return Frame(MessageType.REPLY, frame.id, None)

    dispatcher = RPCDispatcher({MessageType.INFER: wait}, answers.append)
    assert dispatcher.dispatch(Frame(MessageType.INFER, 7, None))
    for _ in range(cancelled_after_steps):
        await asyncio.sleep(0)
    assert dispatcher.dispatch(Frame(MessageType.CANCEL, 7, None))
    for _ in range(3):
        await asyncio.sleep(0)
    return answers


async def test_a_call_cancelled_before_its_first_step_has_one_answer() -> None:
    """A call and its cancellation may arrive in one read; without an answer the caller waits."""
    (answer,) = await run_calls(0)
    assert (answer.kind, answer.id) == (MessageType.ERROR, 7)


async def test_a_call_cancelled_later_has_one_answer() -> None:
    (answer,) = await run_calls(1)
    assert (answer.kind, answer.id) == (MessageType.ERROR, 7)
