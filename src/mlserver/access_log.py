"""The access log: one line per request of any front end, as text or as JSON fields.

Lines are written in groups: once per request, the code of a log line is not in the CPU's caches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from .log_context import LogContext, split_trace_parent
from .logging import get_logger, write_records
from .settings import Settings

# Seconds and lines after which lines are written. 64 lines take 0.4 ms of the event loop.
FLUSH_SECONDS = 0.1
MAX_PENDING = 64


@dataclass(slots=True)
class Access:
    """One request.

    Attributes:
        method: HTTP method; POST for gRPC, RECEIVE for Kafka.
        path: Path, full name of the RPC, or topic.
        status: HTTP status; of gRPC and Kafka, the one that HTTP would have.
        seconds: From the arrival of the request to the end of its response.
        bytes_in: Bytes of the request's body, decompressed.
        bytes_out: Bytes of the response's body, as sent.
        grpc_code: Name of the gRPC status; None = not gRPC.
    """

    method: str
    path: str
    status: int
    seconds: float
    bytes_in: int
    bytes_out: int
    grpc_code: str | None = None


class AccessLog:
    """Writes the lines of one front end. Call its methods in the event loop's thread.

    Args:
        protocol: `rest`, `grpc` or `kafka`; a field of each line.
        logger: The logger of the lines.
    """

    def __init__(self, protocol: str, logger: logging.Logger) -> None:
        self._protocol = protocol
        self._logger = logger
        self._pending: list[tuple[float, Access, LogContext]] = []
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, protocol: str, logger: logging.Logger | None = None
    ) -> AccessLog | None:
        """Return the access log; None if it is off."""
        is_on = settings.debug if settings.access_log is None else settings.access_log
        return cls(protocol, logger or get_logger()) if is_on else None

    def add(self, access: Access, context: LogContext) -> None:
        """Log one request, within `FLUSH_SECONDS`."""
        self._pending.append((time.time(), access, context))
        if len(self._pending) >= MAX_PENDING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the lines of all requests so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        if pending and self._logger.isEnabledFor(logging.INFO):
            write_records(self._logger, [self._create_record(*entry) for entry in pending])

    def _create_record(
        self, created: float, access: Access, context: LogContext
    ) -> logging.LogRecord:
        outcome = access.grpc_code or access.status
        arguments = (access.method, access.path, outcome, access.seconds * 1000)
        text = '"%s %s" %s %.1f ms'
        record = logging.LogRecord(
            self._logger.name, logging.INFO, __file__, 0, text, arguments, None, "add"
        )
        record.created, record.msecs = created, int(created % 1 * 1000)
        record.fields = self._fields(access, context)
        return record

    def _fields(self, access: Access, context: LogContext) -> dict[str, object]:
        trace_id, span_id = split_trace_parent(context.trace_parent)
        fields: dict[str, object] = {
            "event": "request",
            "protocol": self._protocol,
            "method": access.method,
            "path": access.path,
            "status": access.status,
            "duration_ms": round(access.seconds * 1000, 3),
            "model": context.model or None,
            "version": context.version or None,
            "request_id": context.request_id or None,
            "trace_id": trace_id,
            "span_id": span_id,
            "bytes_in": access.bytes_in,
            "bytes_out": access.bytes_out,
        }
        if access.grpc_code is not None:
            fields["grpc_code"] = access.grpc_code
        return fields
