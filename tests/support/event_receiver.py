"""A receiver of CloudEvents over HTTP, which checks each event with the `cloudevents` package."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat


@dataclass
class Received:
    """One event: its attributes and its data."""

    attributes: dict[str, Any]
    data: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.attributes["type"]).rpartition(".")[2]


@dataclass
class EventReceiver:
    """A receiver on a free port of 127.0.0.1.

    Attributes:
        statuses: Statuses of the next responses; then 202.
        is_hanging: Whether requests are read and not answered until the end of the block.
        faults: Texts of events that do not follow the specification.
    """

    statuses: list[int] = field(default_factory=list)
    is_hanging: bool = False
    events: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    attempts: int = 0

    def __enter__(self) -> Self:
        receiver = self
        self._changed = threading.Condition()
        self._end = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver._receive(dict(self.headers.items()), body)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        assert not self.faults, self.faults

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/events"

    def wait_for_events(self, count: int, limit: float = 30.0) -> list[Received]:
        """Return the events when there are so many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.events) >= count, limit)
            assert len(self.events) >= count, f"{len(self.events)} events"
            return list(self.events)

    def wait_for_attempts(self, count: int, limit: float = 30.0) -> None:
        """Return when so many requests have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.attempts >= count, limit), self.attempts

    def _receive(self, headers: dict[str, str], body: bytes) -> int | None:
        with self._changed:
            self.attempts += 1
            status = self.statuses.pop(0) if self.statuses else 202
            if status == 202 and not self.is_hanging:
                self._record(headers, body)
            self._changed.notify_all()
        if self.is_hanging:
            self._end.wait()
            return None
        return status

    def _record(self, headers: dict[str, str], body: bytes) -> None:
        try:
            event = from_binary(HTTPMessage(headers, body), JSONFormat())
            attributes = dict(event.get_attributes())
            assert attributes["specversion"] == "1.0"
            assert attributes["datacontenttype"] == "application/json"
        except Exception as error:
            self.faults.append(f"{error!r}: {headers}")
            return
        self.events.append(Received(attributes, json.loads(body)))


class RawReceiver:
    """A receiver that answers each request of its connections with the same bytes.

    Args:
        answer: The bytes.
        closes: Whether it closes the connection after them.
    """

    def __init__(self, answer: bytes, closes: bool = False) -> None:
        self._answer = answer
        self._closes = closes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(30)
                threading.Thread(target=self._answer_all, args=(connection,), daemon=True).start()

    def _answer_all(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while head := list(iter(lines.readline, b"\r\n")):
                (size,) = (
                    int(line.partition(b":")[2])
                    for line in head
                    if line.startswith(b"content-length")
                )
                lines.read(size)
                connection.sendall(self._answer)
                if self._closes or b"connection: close" in self._answer:
                    return
