"""Responses that a custom handler may return, under the names of MLServer 1.x."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from ..codecs.json import encode_to_json_bytes


class Response(JSONResponse):
    """JSON response that accepts NumPy values, bytes and pydantic models."""

    def render(self, content: Any) -> bytes:
        return encode_to_json_bytes(
            content.model_dump() if isinstance(content, BaseModel) else content
        )


class ServerSentEvent:
    """One event of a stream, with a message as its data."""

    def __init__(self, data: BaseModel, sep: str = "\n", data_charset: str = "utf-8") -> None:
        self.data = data
        self._end = (sep * 2).encode()
        self._charset = data_charset

    def encode(self) -> bytes:
        return b"data: " + self.data.model_dump_json().encode(self._charset) + self._end
