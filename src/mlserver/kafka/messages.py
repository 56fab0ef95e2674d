"""Format of Kafka messages: headers, key and value <-> request, response or error; no I/O."""

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
    """A message from the consumer."""

    key: bytes | None
    value: bytes | None
    headers: RawHeaders


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for the producer.

    Attributes:
        status: The HTTP status of the same outcome.
    """

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    status: int = 200


def read_headers(headers: RawHeaders) -> dict[str, str]:
    """Decode headers, with names in lower case; the last of several with one name."""
    return {name.lower(): (value or b"").decode("utf-8", "replace") for name, value in headers}


def read_model(headers: dict[str, str]) -> tuple[str, str | None]:
    """Return the requested model's name and version. Raises `InvalidMessageHeaders`."""
    if METHOD in headers:
        raise InvalidMessageHeaders(METHOD, "must be absent: every message is an inference request")
    if not headers.get(MODEL):
        raise InvalidMessageHeaders(MODEL)
    return headers[MODEL], headers.get(VERSION) or None


def read_request(message: Incoming, limit: int) -> InferenceRequest:
    """Parse the value as a request; the key, if any, becomes its id.

    Raises:
        PayloadTooLarge: the value has more than `limit` bytes.
        InvalidPayload: the value is not a request, or the key is not UTF-8.
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
                "Invalid message key: expected the request's id as UTF-8 text, received other bytes"
            ) from None
    return request


def write_response(
    response: InferenceResponse, context: RequestContext, events: CloudEvents
) -> Reply:
    """Write a response, with its id as the key, CloudEvents headers, and the model's headers."""
    headers: dict[str, object] = dict(
        events.build_response_headers(response.model_name, response.id)
    )
    if context.response_headers:
        model_names = {name.lower() for name in context.response_headers}
        headers = {
            name: value for name, value in headers.items() if name.lower() not in model_names
        }
        headers.update(context.response_headers)
    key = response.id.encode() if response.id else None
    return Reply(
        key,
        json.write_response(response),
        [(name, _encode(value)) for name, value in headers.items()],
    )


def write_error(error: MLServerError, key: bytes | None) -> Reply:
    """Write an error, with its HTTP status as a header."""
    headers = [(STATUS, b"%d" % error.status_code)]
    return Reply(key, json.write_error(error), headers, error.status_code)


def write_too_large(rejected: Reply) -> Reply:
    """Write the error for a reply too large for the topic; without the key if an error was."""
    is_error = any(name == STATUS for name, _ in rejected.headers)
    error = MLServerError(
        f"Response of {len(rejected.value)} bytes exceeds the limit of the topic (setting"
        " 'kafka_topic_output')",
        500,
    )
    return write_error(error, None if is_error else rejected.key)


def _encode(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
