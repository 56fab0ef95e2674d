"""Kafka messages: headers, key and value -> request, response or error -> headers, key and value. Pure; no sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cloudevents import CloudEvents
from ..errors import MLServerError, PayloadTooLarge
from ..pipeline import RequestContext
from ..types import InferenceRequest, InferenceResponse
from ..wire import json
from .errors import InvalidMessageHeaders

MODEL = "mlserver-model"
VERSION = "mlserver-version"
METHOD = "mlserver-method"
STATUS = "mlserver-status"

RawHeaders = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as the consumer gives it."""

    key: bytes | None
    value: bytes | None
    headers: RawHeaders


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for the producer."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def read_headers(headers: RawHeaders) -> dict[str, str]:
    """Headers as text, names in lower case; of several with one name, the last."""
    return {name.lower(): (value or b"").decode("utf-8", "replace") for name, value in headers}


def read_model(headers: dict[str, str]) -> tuple[str, str | None]:
    """Name and version of the model that is asked. Raises `InvalidMessageHeaders`."""
    if METHOD in headers:
        raise InvalidMessageHeaders(METHOD, "must be absent: every message is an inference request")
    if not headers.get(MODEL):
        raise InvalidMessageHeaders(MODEL)
    return headers[MODEL], headers.get(VERSION) or None


def read_request(message: Incoming, limit: int) -> InferenceRequest:
    """The value as a request, with the key, if there is one, as its id.

    Raises:
        PayloadTooLarge: the value has more than `limit` bytes.
        InvalidPayload: it is no request, or the key is no text.
    """
    value = message.value or b""
    if len(value) > limit:
        raise PayloadTooLarge(limit)
    request = json.read_request(value)
    if message.key:
        try:
            request.put(id=message.key.decode("utf-8"))
        except UnicodeDecodeError:
            raise MLServerError(
                "Invalid message key: expected the request's id as UTF-8 text, received bytes"
            ) from None
    return request


def write_response(response: InferenceResponse, call: RequestContext, events: CloudEvents) -> Reply:
    """An answer: its id is the key; CloudEvents and the model's own headers, which win."""
    headers: dict[str, object] = dict(
        events.build_response_headers(response.model_name, response.id)
    )
    if call.response_headers:
        own = {name.lower() for name in call.response_headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in own}
        headers.update(call.response_headers)
    key = response.id.encode() if response.id else None
    return Reply(
        key,
        json.write_response(response),
        [(name, _bytes(value)) for name, value in headers.items()],
    )


def write_error(error: MLServerError, key: bytes | None) -> Reply:
    """An error: its status, as HTTP has it, is a header."""
    return Reply(key, json.write_error(error), [(STATUS, b"%d" % error.status_code)])


def write_too_large(refused: Reply) -> Reply:
    """What is said instead of an answer that the topic does not take; it leaves out even the key if that is the trouble."""
    is_error = any(name == STATUS for name, _ in refused.headers)
    problem = MLServerError(
        f"The answer of {len(refused.value)} bytes is larger than the output topic allows", 500
    )
    return write_error(problem, None if is_error else refused.key)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
