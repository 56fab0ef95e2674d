"""A network namespace of its own for the calling thread and the processes that it starts.

Ray binds the machine's address and asks its own peers for no credential that a test could rely on:
in a namespace with nothing but a loopback interface, no other program can reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


def find_obstacle() -> str | None:
    """Why this process cannot create a namespace; None if it can."""
    if sys.platform != "linux":
        return "network namespaces are a part of Linux"
    child = os.fork()
    if not child:
        try:
            _call_libc("unshare", _CLONE_NEWNET)
        except OSError:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return None if status == 0 else "no right to create a network namespace (CAP_SYS_ADMIN)"


class Network:
    """A namespace, which exists until `close` or the end of the last process in it.

    Attributes:
        file: Descriptor of the namespace.
    """

    def __init__(self) -> None:
        with _restored():
            _call_libc("unshare", _CLONE_NEWNET)
            _start_loopback()
            self.file = _open_current()

    @property
    def path(self) -> str:
        """A path of the namespace for the command `ip`."""
        return f"/proc/{os.getpid()}/fd/{self.file}"

    @property
    def number(self) -> int:
        """The namespace's inode, as in `/proc/PID/ns/net`."""
        return os.fstat(self.file).st_ino

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace until the end of the block."""
        with _restored():
            _call_libc("setns", self.file, _CLONE_NEWNET)
            yield

    def close(self) -> None:
        os.close(self.file)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Return the calling thread to its namespace at the end of the block."""
    before = _open_current()
    try:
        yield
    finally:
        _call_libc("setns", before, _CLONE_NEWNET)
        os.close(before)


def _open_current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _call_libc(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), function)


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", answer, 16)
        request = struct.pack("16sH14s", b"lo", flags | _IFF_UP, b"")
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
