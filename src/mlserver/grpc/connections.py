"""Connections of the gRPC port: listed from /proc, and closed by their clients after a GOAWAY.

gRPC's library sends GOAWAY only when its server stops, and then cancels every call that arrives
before the client has read the GOAWAY: on a busy machine, 6 of 20 rolling restarts lost calls
(`make rolling TIMES=20`). This module sends each client a first GOAWAY while the server still
serves (RFC 9113, 6.8). The client opens no further streams on the connection, and closes it when
its calls have ended. Linux without TLS only; elsewhere the library's GOAWAY is the only one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator

from ..sockets import ignore_new_connections, is_readable

_FDS = "/proc/self/fd"
_REASON = b"the server is stopping"
_GOAWAY = 0x07
_LAST_STREAM_ID = 2**31 - 1  # calls in flight are served
_NO_ERROR = 0
# The first bytes of a client (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Of Linux's `struct tcp_info`: the offset of `tcpi_bytes_acked` and `tcpi_bytes_received`.
_COUNTS = struct.Struct("<QQ")
_COUNTS_OFFSET = 120


def make_goaway() -> bytes:
    """Return the frame that announces a graceful shutdown."""
    payload = struct.pack(">II", _LAST_STREAM_ID, _NO_ERROR) + _REASON
    length = struct.pack(">I", len(payload))[1:]
    return length + struct.pack(">BBI", _GOAWAY, 0, 0) + payload


class PortConnections:
    """The sockets of one TCP port in this process.

    Args:
        port: Port of the listener.

    Attributes:
        informed: Names of the connections on which a GOAWAY was sent.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.informed: set[str] = set()

    def ignore_new(self) -> None:
        """Make the kernel drop new connections; the library closes the listener later."""
        for _, candidate in self._iterate():
            if _is_listening(candidate):
                ignore_new_connections(candidate)

    def list_open(self) -> set[str]:
        """Return the names of the open connections, and of a listener with a pending connection."""
        return {
            name
            for name, candidate in self._iterate()
            if not _is_listening(candidate) or is_readable(candidate)
        }

    def send_goaway(self) -> None:
        """Send GOAWAY on each connection without one.

        A frame may be written only between two frames of the library. Therefore call this while no
        response is being written; connections with unacknowledged bytes are skipped until the next
        call.
        """
        frame = make_goaway()
        for name, connection in self._iterate():
            is_due = name not in self.informed and not _is_listening(connection)
            if is_due and _is_between_frames(connection):
                with contextlib.suppress(OSError):  # closed by the client
                    connection.send(frame, socket.MSG_DONTWAIT)
                self.informed.add(name)

    def close_silent(self) -> None:
        """Close the connections whose clients have sent no HTTP/2 preface.

        The library does not stop while it waits for a preface.
        """
        for _, connection in self._iterate():
            if _is_listening(connection):
                continue
            counts = _read_counts(connection)
            if counts is not None and counts[1] < len(_PREFACE):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def count_transferred(self) -> int | None:
        """Return the bytes received and acknowledged on all open connections.

        None where they are not known.
        """
        if sys.platform != "linux":
            return None
        total = 0
        for _, connection in self._iterate():
            if _is_listening(connection):
                continue
            counts = _read_counts(connection)
            if counts is None:
                return None
            total += sum(counts)
        return total

    def _iterate(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield names and duplicates of the sockets; a duplicate is closed by the next iteration.

        A duplicate remains valid if the library closes its descriptor meanwhile.
        """
        if sys.platform != "linux":
            return
        for number in os.listdir(_FDS):
            try:
                name = os.readlink(f"{_FDS}/{number}")
                if not name.startswith("socket:"):
                    continue
                duplicate = socket.socket(fileno=os.dup(int(number)))
            except OSError:  # closed meanwhile
                continue
            with duplicate:
                if _has_port(duplicate, self._port):
                    yield name, duplicate


def _has_port(candidate: socket.socket, port: int) -> bool:
    """Return whether a socket listens on a port, or is a connection that it has accepted."""
    if candidate.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        if candidate.type != socket.SOCK_STREAM or candidate.getsockname()[1] != port:
            return False
        if not _is_listening(candidate):
            candidate.getpeername()  # raises if it is bound only
    except OSError:
        return False
    return True


def _is_listening(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_between_frames(connection: socket.socket) -> bool:
    """Return whether the client has received the server's SETTINGS and all that followed."""
    import fcntl
    import termios

    counts = _read_counts(connection)
    if counts is None or not counts[0]:
        return False
    try:
        unacknowledged = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return False
    return not any(unacknowledged)


def _read_counts(connection: socket.socket) -> tuple[int, int] | None:
    """Return the bytes that the client has acknowledged, and those received from it.

    None before Linux 4.1, and for a closed connection.
    """
    size = _COUNTS_OFFSET + _COUNTS.size
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:
        return None
    if len(info) < size:
        return None
    acknowledged, received = _COUNTS.unpack_from(info, _COUNTS_OFFSET)
    return acknowledged, received
