"""Errors of Kafka messages, raised before the value is read."""

from __future__ import annotations

from ..errors import MLServerError


class InvalidMessageHeaders(MLServerError):
    """A header that identifies the model is missing or not valid; the text names it."""

    def __init__(self, header: str, reason: str = "is required and missing") -> None:
        super().__init__(f"Invalid message: header '{header}' {reason}", 422)
