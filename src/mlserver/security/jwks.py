"""Download of an issuer's keys (JWKS), bounded in size and time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.client import HTTPException, HTTPSConnection
from typing import Any
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener


def download(url: str, max_bytes: int, timeout: float) -> str:
    """Return the text at an https URL.

    Args:
        max_bytes: Bytes of the text at most; the rest is not read.
        timeout: Seconds for each step before the request (connect, TLS handshake), and for all of
            the connection, after which it is shut down.

    Raises:
        OSError: there is no complete response in time, its status is an error, or it redirects.
        ValueError: the text is not UTF-8.
    """
    timers: list[threading.Timer] = []

    class Connection(HTTPSConnection):
        """Connection with a time limit; urllib's timeout holds for each read, also of one byte."""

        def connect(self) -> None:
            ends_at = time.monotonic() + timeout
            super().connect()
            remaining = max(ends_at - time.monotonic(), 0.0)
            timer = threading.Timer(remaining, _shut_down, (self.sock,))
            timer.daemon = True
            timer.start()
            timers.append(timer)

    class Handler(HTTPSHandler):
        def https_open(self, req: Request) -> Any:
            return self.do_open(Connection, req)

    request = Request(url, headers={"accept": "application/json"})
    opener = build_opener(Handler, _NoRedirects)
    try:
        with opener.open(request, timeout=timeout) as response:
            content: bytes = response.read(max_bytes)
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
    finally:
        for timer in timers:
            timer.cancel()
    return content.decode()


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: keys are trusted only from the configured URL."""

    def redirect_request(self, *arguments: Any) -> None:
        return None
