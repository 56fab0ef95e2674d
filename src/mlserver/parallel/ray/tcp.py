"""TCP connections between servers and replicas: their options, and peers whose host is silent.

A host that is cut off, or has lost its power, sends no end of its connections. The kernel ends one
that has nothing to send after `SILENCE_SECONDS` (keep-alive probes); one whose data is not
acknowledged only after a quarter of an hour, so that both ends ask `is_silent`.

`TCP_USER_TIMEOUT` is no substitute. It also ends connections to a peer that is alive and does not
read: a model that holds the interpreter's lock for longer, and a large request on its way to it.
"""

from __future__ import annotations

import socket
import struct

SILENCE_SECONDS = 6
_KEEP_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}
# Of Linux's `struct tcp_info`: `tcpi_unacked`, and `tcpi_last_ack_recv` in milliseconds.
_TCP_INFO = struct.Struct("=24xI28xI")


def set_tcp_options(end: socket.socket) -> None:
    """Send small frames at once, and probe a peer that sends nothing."""
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_silent(end: socket.socket) -> bool:
    """Whether the peer's host has acknowledged nothing for `SILENCE_SECONDS`, though it should.

    A peer that does not read is not silent: its kernel answers. False where the kernel does not
    report it (systems other than Linux).
    """
    if not hasattr(socket, "TCP_INFO"):
        return False
    try:
        info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # it is closed
        return False
    if len(info) < _TCP_INFO.size:
        return False
    unacknowledged, milliseconds = _TCP_INFO.unpack(info)
    return bool(unacknowledged) and milliseconds > SILENCE_SECONDS * 1000
