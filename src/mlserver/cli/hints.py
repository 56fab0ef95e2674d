"""Collector of the hints that the server logs while it reads settings and searches for models."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from ..logging import get_logger


class HintCollector(logging.Handler):
    """Collects log records from INFO on, in place of the logger's handlers, within `with` blocks.

    Attributes:
        texts: The messages, each once.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self._handlers: list[logging.Handler] = []
        self._level = logging.NOTSET

    def emit(self, record: logging.LogRecord) -> None:
        self.add([record.getMessage()])

    def add(self, texts: Iterable[str]) -> None:
        """Add hints."""
        self.texts += [text for text in texts if text not in self.texts]

    def __enter__(self) -> Self:
        logger = get_logger()
        self._handlers, self._level = list(logger.handlers), logger.level
        logger.handlers = [self]
        logger.setLevel(logging.INFO)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logger = get_logger()
        logger.handlers = self._handlers
        logger.setLevel(self._level)
