"""A raw HTTP client: bytes over a socket, for requests that no client library would send."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

LIMIT = 20.0  # time limit in seconds of a response, and of the end of a connection


class Wire:
    """One connection to 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self._left = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._left += data
        return bool(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read the next response: status, headers, body.

        Raises `EOFError` if the connection ends first.
        """
        while b"\r\n\r\n" not in self._left:
            if not self._more():
                raise EOFError(f"the connection ended after {self._left!r}")
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        size = int(headers.get("content-length", "0"))
        while len(self._left) < size:
            if not self._more():
                raise EOFError(f"the connection ended inside of a body, after {self._left!r}")
        body, self._left = self._left[:size], self._left[size:]
        return int(first.split()[1]), headers, body

    def ended(self) -> float:
        """Wait until the server closes the connection without another byte.

        Returns the seconds it took.
        """
        started = time.monotonic()
        while self._more():
            pass
        assert self._left == b"", self._left
        return time.monotonic() - started


@contextlib.contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A connection, closed at the end of the block."""
    connection = Wire(port)
    try:
        yield connection
    finally:
        connection.socket.close()


def request(method: str, path: str, body: bytes | None = None, *headers: str) -> bytes:
    """A valid request with further header lines."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def infer(model: str, value: float) -> bytes:
    """A valid inference request of one number."""
    tensor: dict[str, Any] = {"name": "x", "shape": [1], "datatype": "FP64", "data": [value]}
    return request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode())
