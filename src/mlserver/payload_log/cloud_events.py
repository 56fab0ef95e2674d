"""Sender of CloudEvents 1.0 in binary mode over HTTP, with KServe's types and extension names.

A request and its responses have one `ce-id`, the request's id, and differ in `ce-type`: consumers
of KServe's inference logger join them by the id.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from functools import lru_cache
from urllib.parse import quote, urlsplit

import httptools

from ..cloudevents import get_namespace
from ..version import __version__
from .encoding import format_time
from .events import PayloadEvent

TYPES = {
    "request": "org.kubeflow.serving.inference.request",
    "response": "org.kubeflow.serving.inference.response",
}
# Seconds for a connection, and for a response.
TIMEOUT = 5.0
# Seconds before each further attempt to send an event.
RETRY_DELAYS = (0.2, 0.8)
_RETRIED_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
_RECEIVED = 65536
_MAX_RESPONSE = 1024 * 1024
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
    """Sends events over one keep-alive connection. Used by one thread.

    Responses are parsed by httptools: a POST takes a third of the CPU time of http.client's
    (measured by `python -m benchmarks.payload_log`). The thread holds the GIL in that time, so
    that requests wait.

    Args:
        address: The address that receives the events.
        stopping: Set when the server stops: no further attempts are made.
    """

    def __init__(self, address: str, stopping: threading.Event) -> None:
        parts = urlsplit(address)
        is_encrypted = parts.scheme == "https"
        self._host = str(parts.hostname)
        self._port = parts.port or (443 if is_encrypted else 80)
        self._context = ssl.create_default_context() if is_encrypted else None
        path = quote(parts.path or "/", safe=_PLAIN + "%")
        query = f"?{quote(parts.query, safe=_PLAIN + '%')}" if parts.query else ""
        self._head = f"POST {path}{query} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        self._socket: socket.socket | None = None
        self._stopping = stopping

    def send(self, event: PayloadEvent, body: bytes) -> None:
        """Send an event; retry if the receiver cannot be reached or is overloaded.

        Args:
            body: The encoded event (`encoding.encode_body`).

        Raises:
            NotDelivered: all attempts failed, or the receiver refused the event.
        """
        message = self._build_message(build_headers(event), body)
        for delay in (*RETRY_DELAYS, None):
            try:
                self._post(message)
                return
            except NotDelivered as error:
                is_last = delay is None or error.is_final
                if is_last or self._stopping.wait(delay):
                    raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _build_message(self, headers: dict[str, str], body: bytes) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = f"{self._head}{''.join(lines)}content-length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body

    def _post(self, message: bytes) -> None:
        is_reused = self._socket is not None
        try:
            status = self._exchange(message)
        except (OSError, httptools.HttpParserError) as error:
            self.close()
            # The receiver may close an idle connection at any time.
            if is_reused and not isinstance(error, TimeoutError):
                self._post(message)
                return
            raise NotDelivered(f"{type(error).__name__}: {error}") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"status {status}", status not in _RETRIED_STATUSES)

    def _exchange(self, message: bytes) -> int:
        """Send a message and return the status of its response, within `TIMEOUT` seconds."""
        deadline = time.monotonic() + TIMEOUT
        if self._socket is None:
            self._socket = self._connect()
        self._socket.settimeout(TIMEOUT)
        self._socket.sendall(message)
        response = _Response()
        while not response.is_complete:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no complete response in time")
            self._socket.settimeout(remaining)
            response.feed(self._socket.recv(_RECEIVED))
        if not response.keeps_alive:
            self.close()
        return int(response.parser.get_status_code())

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return connection
        return self._context.wrap_socket(connection, server_hostname=self._host)


class _Response:
    """One response: its parser, whether it is complete, and whether the connection can be reused.

    The content is discarded.
    """

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.is_complete = False
        self.keeps_alive = False
        self._size = 0

    def feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("closed without a complete response")
        self._size += len(data)
        if self._size > _MAX_RESPONSE:
            raise ConnectionError(f"a response of more than {_MAX_RESPONSE} bytes")
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        # An interim response (100 Continue, 103 Early Hints) is followed by the final one.
        self.is_complete = self.parser.get_status_code() >= 200
        # llhttp's answer is valid in this callback only.
        self.keeps_alive = bool(self.parser.should_keep_alive())


def build_headers(event: PayloadEvent) -> dict[str, str]:
    """Return the HTTP headers of an event: its attributes, and the type of its body."""
    log = event.log
    event_id = event.request_id or ""
    if event.index:
        event_id = f"{event_id}.{event.index}"
    return {
        **_model_headers(log.name, log.version, log.service or log.name),
        "ce-id": _encode_value(event_id),
        "ce-type": TYPES[event.kind],
        "ce-time": format_time(event.time),
    }


@lru_cache(maxsize=1024)
def _model_headers(model: str, version: str | None, service: str) -> dict[str, str]:
    """Return the headers that all events of a model have in common."""
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
    return {name: _encode_value(value) for name, value in headers.items()} | {
        "content-type": "application/json",
        "user-agent": f"mlserver/{__version__}",
    }


def _encode_value(value: str) -> str:
    return quote(value, safe=_PLAIN)
