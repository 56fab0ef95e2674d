"""The floor under the floor: HTTP alone. The request is read and not looked at; the answer is always the same."""

from __future__ import annotations

from typing import Any

from asgi import Receive, Send, answer, read_body

ANSWER = b'{"predictions":[5.576883967127186]}'


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await read_body(receive)
        await answer(send, ANSWER)
