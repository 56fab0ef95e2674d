"""The most recent error responses of one process, without the requests' data.

Equal errors (model, operation, status, message) are one entry with a count, so that a flood of one
error does not displace the others. The number of entries is bounded.
"""

from __future__ import annotations

import time
import traceback
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ..errors import MLServerError, format_exception

# Entries that are kept, and their sizes in characters.
MAX_ERRORS = 200
MAX_MESSAGE = 1000
MAX_TRACEBACK = 8000
MAX_REQUEST_ID = 200
# Distinct kinds that are counted; further ones are counted as "other".
MAX_KINDS = 100

Entry = dict[str, Any]


class RecentErrors:
    """Error responses by model, operation, status and message; the oldest are dropped."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, ...], Entry] = OrderedDict()
        self._counts: dict[str, int] = {}

    def add(
        self,
        error: Exception,
        operation: str,
        model: str = "",
        version: str = "",
        request_id: str | None = None,
    ) -> None:
        """Add an error response.

        Args:
            operation: Method and path template, or the name of the RPC; "" = unknown.
            model: Name of the model; "" = none.
        """
        now = time.time()
        status, message = 500, format_exception(error)
        if isinstance(error, MLServerError):
            error.is_recorded = True
            status, message = error.status_code, error.message
        kind = type(error).__name__
        message = message[:MAX_MESSAGE]
        key = (model, version, operation, str(status), message)
        entry = self._entries.pop(key, None)
        if entry is None:
            entry = {
                "model": model,
                "version": version,
                "operation": operation,
                "status": status,
                "kind": kind,
                "message": message,
                "first": now,
                "count": 0,
            }
        text = _format_traceback(error)
        entry |= {
            "last": now,
            "count": entry["count"] + 1,
            "request_id": request_id[:MAX_REQUEST_ID] if request_id else None,
            "traceback": text or entry.get("traceback"),
        }
        self._entries[key] = entry
        if len(self._entries) > MAX_ERRORS:
            self._entries.popitem(last=False)
        label = f"{status} {kind}"
        if label not in self._counts and len(self._counts) >= MAX_KINDS:
            label = "other"
        self._counts[label] = self._counts.get(label, 0) + 1

    def export(self) -> dict[str, Any]:
        """Return the entries, the oldest first, and the counts since the start, as plain data."""
        return {"errors": list(self._entries.values()), "counts": dict(self._counts)}


def _format_traceback(error: Exception) -> str | None:
    """Return the end of a traceback, None for errors that the server itself reports."""
    if isinstance(error, MLServerError):
        text = error.traceback
    else:
        text = "".join(traceback.format_exception(error))
    return None if text is None else text[-MAX_TRACEBACK:]


def merge_errors(exports: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors of several processes: the latest first, and summed counts."""
    errors: list[Entry] = []
    counts: dict[str, int] = {}
    for export in exports:
        errors += export["errors"]
        for label, count in export["counts"].items():
            counts[label] = counts.get(label, 0) + count
    errors.sort(key=lambda entry: entry["last"], reverse=True)
    return {"errors": errors[:MAX_ERRORS], "counts": dict(sorted(counts.items()))}
