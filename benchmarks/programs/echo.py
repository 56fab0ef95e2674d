"""HTTP echo: reads the request body and returns a constant response; measures HTTP alone."""

from __future__ import annotations

from typing import Any

from asgi import Receive, Send, read_body, send_response

RESPONSE = b'{"predictions":[5.576883967127186]}'


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await read_body(receive)
        await send_response(send, RESPONSE)
