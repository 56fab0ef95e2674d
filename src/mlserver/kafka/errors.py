"""What can be wrong with a Kafka message before its value is looked at."""

from __future__ import annotations

from ..errors import MLServerError


class InvalidMessageHeaders(MLServerError):
    """The headers do not say which model should answer; the text names the header."""

    def __init__(self, header: str, reason: str = "is required and missing") -> None:
        super().__init__(f"Invalid message: header '{header}' {reason}", 422)
