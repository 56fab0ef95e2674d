"""Passes sockets between processes (SCM_RIGHTS): one file descriptor and one number per message.

Two processes that the server started are connected this way without an address that another process
could connect to.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterator

_NUMBER = struct.Struct("<Q")
_CONTROL_SIZE = socket.CMSG_SPACE(array.array("i").itemsize)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def create_control_sockets() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair to pass descriptors over: the server's end and the child's."""
    server_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    server_end.setblocking(False)
    child_end.setblocking(False)
    return server_end, child_end


def control_socket_from_fd(fd: int) -> socket.socket:
    """Return the end that this process inherited as a file descriptor."""
    control_socket = socket.socket(fileno=fd)
    control_socket.setblocking(False)
    control_socket.set_inheritable(False)
    return control_socket


def send_fd(control_socket: socket.socket, connection: socket.socket, number: int) -> None:
    """Send a copy of a socket's descriptor; the caller closes its own.

    Raises:
        OSError: the peer is gone, or its queue is full.
    """
    socket.send_fds(control_socket, [_NUMBER.pack(number)], [connection.fileno()])


def receive_fds(control_socket: socket.socket) -> Iterator[tuple[int, socket.socket]]:
    """Yield the sockets that have arrived, each with its number. Does not block."""
    while True:
        try:
            data, control, _, _ = control_socket.recvmsg(
                _NUMBER.size, _CONTROL_SIZE, _CLOSE_ON_EXEC
            )
        except OSError:  # no message, or the peer is gone
            return
        descriptors = array.array("i")
        for _, kind, content in control:
            if kind == socket.SCM_RIGHTS:
                whole = len(content) - len(content) % descriptors.itemsize
                descriptors.frombytes(content[:whole])
        if len(data) != _NUMBER.size or len(descriptors) != 1:
            return
        connection = socket.socket(fileno=descriptors[0])
        connection.set_inheritable(False)
        yield _NUMBER.unpack(data)[0], connection
