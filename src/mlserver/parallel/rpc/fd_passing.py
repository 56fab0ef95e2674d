"""Open connections handed from one process to another: a descriptor and a number per message, over a pair of their own.

So two processes that the server started get to talk to each other without an address that anybody else could use.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterator

_NUMBER = struct.Struct("<Q")
_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def create_control_sockets() -> tuple[socket.socket, socket.socket]:
    """Both ends of a way for connections."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    mine.setblocking(False)
    theirs.setblocking(False)
    return mine, theirs


def control_socket_from_fd(number: int) -> socket.socket:
    """The end that this process inherited under a descriptor's number."""
    control_socket = socket.socket(fileno=number)
    control_socket.setblocking(False)
    control_socket.set_inheritable(False)
    return control_socket


def send_fd(control_socket: socket.socket, connection: socket.socket, number: int) -> None:
    """Give a connection away; this process's own copy is for the caller to close. Raises `OSError` if nobody takes it."""
    socket.send_fds(control_socket, [_NUMBER.pack(number)], [connection.fileno()])


def receive_fds(control_socket: socket.socket) -> Iterator[tuple[int, socket.socket]]:
    """The connections that wait to be taken, each with its number."""
    while True:
        try:
            data, control, _, _ = control_socket.recvmsg(_NUMBER.size, _ROOM, _CLOSE_ON_EXEC)
        except OSError:  # nothing waits, or the other end is gone
            return
        descriptors = array.array("i")
        for _, kind, content in control:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if len(data) != _NUMBER.size or len(descriptors) != 1:
            return
        connection = socket.socket(fileno=descriptors[0])
        connection.set_inheritable(False)
        yield _NUMBER.unpack(data)[0], connection
