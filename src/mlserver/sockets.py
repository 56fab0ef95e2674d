"""Sockets of the front ends: bind, descriptor limit, addresses, and a listener that stops
accepting.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import sys

from .errors import MLServerError

SPARE_DESCRIPTORS = 512  # for files and workers
# Seconds in which TCP handshakes finish that have begun before new connections are ignored.
HANDSHAKE_WAIT = 0.05
_SO_ATTACH_FILTER = 26
# Classic BPF program over a TCP segment: drop segments with SYN and without ACK, which open a
# connection.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # mask SYN and ACK
    (0x15, 1, 0, 0x02),  # SYN alone: skip the next instruction
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
    (0x06, 0, 0, 0),  # drop
)


def bind(
    host: str, port: int, setting: str, shared: bool = False, listens: bool = True
) -> socket.socket:
    """Return a listening socket.

    Args:
        setting: Name of the port's setting, for the error.
        shared: Whether other processes of this server listen on the same port; the kernel then
            distributes the connections (SO_REUSEPORT).
        listens: False = only reserve the port.

    Raises:
        MLServerError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        if listens:
            listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason += "; choose another port, or end the program that has it"
        address = join_address(host, port)
        raise MLServerError(
            f"Cannot listen on {address} (setting '{setting}'): {reason}", 500
        ) from None
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def join_address(host: str, port: int) -> str:
    """Return `host:port` as in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def get_address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    """Return host and port of `sockname` or `peername`; None for a Unix socket or a lost
    connection.
    """
    address = transport.get_extra_info(name)
    return address[:2] if isinstance(address, tuple) else None


def is_readable(connection: socket.socket) -> bool:
    """Return whether a socket has unread bytes, or a listening one has connections to accept."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def raise_descriptor_limit(connections: int) -> int:
    """Raise the soft limit of open files for `connections`, within the hard limit.

    Returns:
        How many of the connections the limit allows.
    """
    try:
        import resource
    except ImportError:  # Windows
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        required = min(required, hard)
    if soft != resource.RLIM_INFINITY and soft < required:
        resource.setrlimit(resource.RLIMIT_NOFILE, (required, hard))
        soft = required
    is_unlimited = soft == resource.RLIM_INFINITY
    return connections if is_unlimited else min(connections, max(soft - SPARE_DESCRIPTORS, 2))


def ignore_new_connections(listener: socket.socket) -> bool:
    """Make the kernel drop new connections to a listener, and return whether it can (Linux).

    Closing the listener would reset connections that are not accepted yet, with the requests that
    their clients have already sent. A client whose SYN is dropped retries after a second and is
    then refused.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    program = ctypes.create_string_buffer(code, len(code))
    try:
        argument = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        return False
    return True
