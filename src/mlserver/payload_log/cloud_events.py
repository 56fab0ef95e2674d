"""Sender of CloudEvents 1.0 in binary mode over HTTP, with KServe's types and extension names.

A request and its responses have one `ce-id`, the request's id, and differ in `ce-type`: consumers
of KServe's inference logger join them by the id.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from functools import lru_cache
from urllib.parse import quote, urlsplit

from ..cloudevents import get_namespace
from ..version import __version__
from .encoding import encode_body, format_time
from .events import PayloadEvent

TYPES = {
    "request": "org.kubeflow.serving.inference.request",
    "response": "org.kubeflow.serving.inference.response",
}
# Seconds for a connection, and for each part of a response.
TIMEOUT = 5.0
# Seconds before each further attempt to send an event.
RETRY_DELAYS = (0.2, 0.8)
_RETRIED_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
# Bytes of a response that are read, so that the connection can be used again.
_MAX_RESPONSE = 65536
# Characters of attribute values that are not percent-encoded: U+0021 to U+007E without `"` and `%`
# (CloudEvents HTTP binding 1.0.2, section 3.1.3.2).
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class NotDelivered(Exception):
    """An event was not accepted.

    Args:
        reason: Text for the log.
        is_final: Whether further attempts are useless.
    """

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class CloudEventSender:
    """Sends events over one connection, which is kept open. Used by one thread.

    Args:
        address: The address that receives the events.
        stopping: Set when the server stops: no further attempts are made.
    """

    def __init__(self, address: str, stopping: threading.Event) -> None:
        parts = urlsplit(address)
        host = str(parts.hostname)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection
        if context is None:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT)
        else:
            self._connection = http.client.HTTPSConnection(
                host, parts.port, timeout=TIMEOUT, context=context
            )
        path = parts.path or "/"
        self._target = f"{path}?{parts.query}" if parts.query else path
        self._stopping = stopping

    def send(self, event: PayloadEvent) -> None:
        """Send an event, with further attempts if the receiver cannot be reached or is busy.

        Raises:
            NotDelivered: all attempts failed, or the receiver refused the event.
        """
        headers, body = build_headers(event), encode_body(event)
        for delay in (*RETRY_DELAYS, None):
            try:
                self._post(headers, body)
                return
            except NotDelivered as error:
                is_last = delay is None or error.is_final
                if is_last or self._stopping.wait(delay):
                    raise

    def close(self) -> None:
        self._connection.close()

    def _post(self, headers: dict[str, str], body: bytes) -> None:
        is_reused = self._connection.sock is not None
        try:
            status = self._exchange(headers, body)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # The receiver may close an idle connection at any time.
            if is_reused and not isinstance(error, TimeoutError):
                self._post(headers, body)
                return
            raise NotDelivered(f"{type(error).__name__}: {error}") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"status {status}", status not in _RETRIED_STATUSES)

    def _exchange(self, headers: dict[str, str], body: bytes) -> int:
        connection = self._connection
        if connection.sock is None:
            connection.connect()  # sets TCP_NODELAY
        connection.request("POST", self._target, body, headers)
        response = connection.getresponse()
        response.read(_MAX_RESPONSE)
        if not response.isclosed():
            connection.close()
        return response.status


def build_headers(event: PayloadEvent) -> dict[str, str]:
    """Return the HTTP headers of an event: its attributes, and the type of its body."""
    log = event.log
    event_id = event.request_id or ""
    if event.index:
        event_id = f"{event_id}.{event.index}"
    headers = {
        **_model_headers(log.name, log.version, log.service or log.name),
        "ce-id": event_id,
        "ce-type": TYPES[event.kind],
        "ce-time": format_time(event.time),
    }
    return {name: _encode_value(value) for name, value in headers.items()} | {
        "content-type": "application/json",
        "user-agent": f"mlserver/{__version__}",
    }


@lru_cache(maxsize=1024)
def _model_headers(model: str, version: str | None, service: str) -> dict[str, str]:
    """Return the attributes that all events of a model have in common."""
    headers = {
        "ce-specversion": "1.0",
        "ce-source": f"http://{socket.gethostname()}/v2/models/{quote(model, safe='')}",
        "ce-inferenceservicename": service,
        "ce-component": "predictor",
        "ce-endpoint": "default",
    }
    namespace = get_namespace()
    if namespace is not None:
        headers["ce-namespace"] = namespace
    if version is not None:
        headers["ce-modelversion"] = version
    return headers


def _encode_value(value: str) -> str:
    return quote(value, safe=_PLAIN)
