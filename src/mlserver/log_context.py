"""Context of the log lines of one request: its id, its trace and its model.

Front ends set the context variable when a request arrives; worker processes set it when a model
runs the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

# Headers whose value becomes the id of a request without one; the first has precedence.
REQUEST_ID, CLOUD_EVENT_ID = "x-request-id", "ce-id"
TRACE_PARENT = "traceparent"
MAX_ID_LENGTH = 1024  # as of an id in a body
_HEADERS = frozenset(name.encode() for name in (REQUEST_ID, CLOUD_EVENT_ID, TRACE_PARENT))
# Version, trace id, span id, flags: https://www.w3.org/TR/trace-context/#traceparent-header.
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class LogContext:
    """One request, or one batch of them in a worker.

    Attributes:
        request_id: Id of the request; "" = none, or not known yet.
        trace_parent: W3C trace context of the server's span; without tracing, of the client's.
        joined_ids: The ids of the requests in a batch, in order.
        model: Name of the model that serves the request; "" = none, or not known yet.
        version: Its version; "" = none.
        echoed: Headers of the request that its response repeats: `x-request-id` and `ce-id`.
        has_ended: Whether the response is sent. Tasks that the request has started may still run;
            their log lines do not belong to the request.
    """

    __slots__ = (
        "echoed",
        "has_ended",
        "joined_ids",
        "model",
        "request_id",
        "trace_parent",
        "version",
    )

    def __init__(
        self,
        request_id: str = "",
        trace_parent: str | None = None,
        joined_ids: Sequence[str | None] = (),
        echoed: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.request_id = request_id
        self.trace_parent = trace_parent
        self.joined_ids = joined_ids
        self.model = self.version = ""
        self.echoed = echoed
        self.has_ended = False

    def to_fields(self) -> dict[str, Any]:
        """Return the ids as fields of a log line; unknown ones are omitted."""
        fields: dict[str, Any] = {}
        if self.request_id:
            fields["request_id"] = self.request_id
        if self.joined_ids:
            fields["request_ids"] = [each for each in self.joined_ids if each]
        trace_id, span_id = split_trace_parent(self.trace_parent)
        if trace_id is not None:
            fields["trace_id"], fields["span_id"] = trace_id, span_id
        return fields


variable: ContextVar[LogContext | None] = ContextVar("mlserver_log_context", default=None)


def get_current() -> LogContext | None:
    """Return the context of the current request; None outside of requests."""
    context = variable.get()
    return None if context is None or context.has_ended else context


def note_model(name: str, version: str | None) -> LogContext | None:
    """Set the model of the current request, and return the request's context."""
    context = variable.get()
    if context is not None:
        context.model, context.version = name, version or ""
    return context


def read_raw_headers(headers: Iterable[tuple[bytes, bytes]]) -> LogContext:
    """Return the context of an HTTP request, from headers with names in lower case."""
    values: dict[str, str] = {}
    for name, value in headers:
        if name in _HEADERS:
            values.setdefault(name.decode(), value.decode("latin-1"))
    return read_headers(values) if values else LogContext()


def read_headers(headers: Mapping[str, Any]) -> LogContext:
    """Return the context of a request, from headers or gRPC metadata with names in lower case.

    Ids that are not printable ASCII, or too long, and invalid trace contexts are ignored.
    """
    ids: list[tuple[str, str]] = []
    for name in (REQUEST_ID, CLOUD_EVENT_ID):
        value = headers.get(name)
        if isinstance(value, str) and _is_valid_id(value):
            ids.append((name, value))
    trace_parent = headers.get(TRACE_PARENT)
    if split_trace_parent(trace_parent)[0] is None:
        trace_parent = None
    return LogContext(ids[0][1] if ids else "", trace_parent, echoed=tuple(ids))


def split_trace_parent(value: object) -> tuple[str | None, str | None]:
    """Return trace id and span id of a `traceparent`; None for both if it is not valid."""
    if not isinstance(value, str):
        return None, None
    match = _TRACE_PARENT.fullmatch(value)
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        return None, None
    return match[1], match[2]


def _is_valid_id(value: str) -> bool:
    return 0 < len(value) <= MAX_ID_LENGTH and value.isascii() and value.isprintable()
