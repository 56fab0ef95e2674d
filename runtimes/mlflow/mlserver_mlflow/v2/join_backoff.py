"""Backoff for joining requests: a joint result that cannot be split wastes a prediction."""

from __future__ import annotations

from mlserver.errors import CannotBatch
from mlserver.logging import get_logger

logger = get_logger()

# Maximum number of batches that run request by request before joining is tried again.
MAX_SKIPPED_BATCHES = 256


class JoinBackoff:
    """Exponential backoff of one model.

    After each batch whose result could not be split, twice as many batches run request by request.
    A result that can be split resets the count.
    """

    def __init__(self, model_name: str) -> None:
        self._name = model_name
        self._skip_count = 0
        self._remaining = 0

    def check(self) -> None:
        """Raise `CannotBatch` if this batch must run request by request."""
        if self._remaining:
            self._remaining -= 1
            raise CannotBatch

    def record(self, is_separable: bool) -> None:
        """Record a batch's outcome. Raises `CannotBatch` if its result cannot be split."""
        if is_separable:
            self._skip_count = 0
            return
        if not self._skip_count:
            logger.info(
                "Model '%s': the types of a joint result depend on all its rows, so requests run"
                " one by one; declare the outputs in the signature to avoid that",
                self._name,
            )
        self._skip_count = self._remaining = min(MAX_SKIPPED_BATCHES, self._skip_count * 2 or 1)
        raise CannotBatch
