"""Why forks have failed in the pool of a model, for the next pool of the same model.

A pool of one model ends with each reload. Without this, each reload would try forks that hang.
"""

from __future__ import annotations

import time
from collections.abc import Hashable

# Seconds for which a refusal is remembered: a new version of the model may have other libraries.
MEMORY_SECONDS = 3600.0


class ForkRefusals:
    """Refusals of the last `MEMORY_SECONDS`, by what identifies the models of a pool."""

    def __init__(self) -> None:
        self._reasons: dict[Hashable, tuple[float, str]] = {}

    def record(self, key: Hashable, reason: str) -> None:
        now = time.monotonic()
        self._reasons = {
            known: entry
            for known, entry in self._reasons.items()
            if now - entry[0] < MEMORY_SECONDS
        }
        self._reasons[key] = now, reason

    def get(self, key: Hashable) -> str | None:
        """Return the reason why no worker of the pool is forked; None = forks are tried."""
        recorded, reason = self._reasons.get(key, (float("-inf"), None))
        return reason if time.monotonic() - recorded < MEMORY_SECONDS else None
