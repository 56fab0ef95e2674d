"""Fields of a request that the data plane sets: id, the client's timeout, priority, headers."""

from __future__ import annotations

import random
import time

from ..log_context import LogContext
from ..metrics.model_metrics import ModelMetrics
from ..pipeline import RequestContext
from ..security.credentials import CREDENTIAL_HEADERS
from ..types import InferenceRequest, Parameters
from .validation import check_id, parse_priority, parse_timeout


def set_request_fields(
    payload: InferenceRequest,
    context: RequestContext,
    log_context: LogContext | None,
    with_headers: bool,
    has_auth: bool,
) -> None:
    """Set the id, the deadline, the priority and the headers of a request.

    Args:
        log_context: Ids of the headers; gets the request's id.
        with_headers: Whether the model gets the client's headers. Row-wise models depend on the
            rows only and get none.
        has_auth: Whether clients authenticate; their credentials are not passed to models.
    """
    _set_id(payload, log_context)
    parameters = payload.parameters
    if parameters is not None:
        extra = parameters.__pydantic_extra__ or {}
        seconds = parse_timeout(extra.pop("timeout", None))
        if seconds is not None:
            deadline = time.monotonic() + seconds
            if context.deadline is None or deadline < context.deadline:
                context.deadline = deadline
        context.priority = parse_priority(extra.pop("priority", None)) or context.priority
        parameters.put(headers=None)
    if with_headers and context.headers is not None:
        if parameters is None:
            parameters = Parameters()
            payload.put(parameters=parameters)
        headers = dict(context.headers)
        if has_auth:
            headers = {
                name: value for name, value in headers.items() if name not in CREDENTIAL_HEADERS
            }
        parameters.put(headers=headers)


def _set_id(payload: InferenceRequest, log_context: LogContext | None) -> None:
    """Check the id; a request without one gets that of its headers, or a random one."""
    if not payload.id and log_context is not None and log_context.request_id:
        payload.put(id=log_context.request_id)
    elif payload.id is None:
        payload.put(id=generate_id())
    else:
        check_id(payload)
    if log_context is not None:
        log_context.request_id = payload.id or ""


def record_error(
    metrics: ModelMetrics,
    error: BaseException,
    payload: InferenceRequest | None,
    context: RequestContext,
) -> None:
    """Add an error to the list of recent errors, unless the client has disconnected."""
    if isinstance(error, Exception):
        request_id = payload.id if payload is not None else None
        metrics.request_failed(error, context.operation or "", request_id)


def generate_id() -> str:
    """Return a random UUID (version 4). Ids are not secret, so a fast generator is enough."""
    # Version 4 (4 bits) and variant 10 (2 bits), see RFC 9562 section 5.4.
    number = random.getrandbits(128) & ~0xF000C000000000000000 | 0x40008000000000000000
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
