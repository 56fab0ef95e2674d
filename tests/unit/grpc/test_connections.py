"""GOAWAY to the connections of a port, on plain sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from mlserver.grpc.connections import PortConnections, make_goaway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds sockets in /proc")
TIMEOUT = 10


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as created:
        yield created


def connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), TIMEOUT)


def test_the_frame() -> None:
    """Length, type, flags and stream id; then last stream id, code and text (RFC 9113, 6.8)."""
    frame = make_goaway()
    assert frame[:9] == len(frame[9:]).to_bytes(3, "big") + b"\x07\x00" + bytes(4)
    assert frame[9:17] == bytes.fromhex("7fffffff 00000000")


def test_a_connection_gets_it_once_and_after_other_bytes(listener: socket.socket) -> None:
    connections = PortConnections(listener.getsockname()[1])
    with connect(listener) as client, listener.accept()[0] as accepted:
        connections.send_goaway()
        assert not connections.informed  # the preface of the server comes first
        accepted.sendall(b"preface")
        assert client.recv(100) == b"preface"
        while not connections.informed:  # until the kernel has the client's acknowledgement
            connections.send_goaway()
        connections.send_goaway()
        assert connections.informed == connections.list_open()
        accepted.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as received:
            assert received.read() == make_goaway()


def test_a_connection_with_unread_bytes_is_left_alone(listener: socket.socket) -> None:
    """The library may have sent half a frame: what comes next must be the rest of it."""
    connections = PortConnections(listener.getsockname()[1])
    with connect(listener) as client, listener.accept()[0] as accepted:
        accepted.setblocking(False)
        sent = 0
        while True:
            try:
                sent += accepted.send(b"x" * 65536)
            except BlockingIOError:
                break
        connections.send_goaway()
        assert not connections.informed
        while sent:
            sent -= len(client.recv(65536))


def test_what_counts_as_open(listener: socket.socket) -> None:
    connections = PortConnections(listener.getsockname()[1])
    assert connections.list_open() == set()
    with connect(listener), socket.create_server(("127.0.0.1", 0)) as other, connect(other):
        assert len(connections.list_open()) == 1  # waits to be accepted
        with listener.accept()[0]:
            assert len(connections.list_open()) == 1
    assert connections.list_open() == set()


def test_transferred_bytes_are_counted(listener: socket.socket) -> None:
    """In both directions, on all connections."""
    connections = PortConnections(listener.getsockname()[1])
    assert connections.count_transferred() == 0
    with (
        connect(listener) as first,
        listener.accept()[0] as accepted,
        connect(listener) as second,
        listener.accept()[0] as other,
    ):
        first.sendall(b"abc")
        second.sendall(b"de")
        assert accepted.recv(3, socket.MSG_WAITALL) + other.recv(2, socket.MSG_WAITALL) == b"abcde"
        base = connections.count_transferred()
        assert base is not None
        assert base >= 5
        accepted.sendall(b"fghi")
        assert first.recv(4, socket.MSG_WAITALL) == b"fghi"
        while connections.count_transferred() != base + 4:  # until the acknowledgement
            pass


def test_silent_connections_are_closed(listener: socket.socket) -> None:
    """Those of clients that have sent less than the preface of HTTP/2."""
    connections = PortConnections(listener.getsockname()[1])
    with (
        connect(listener) as silent,
        listener.accept()[0],
        connect(listener) as client,
        listener.accept()[0] as accepted,
    ):
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert accepted.recv(100)
        connections.close_silent()
        assert silent.recv(1) == b""
        accepted.sendall(b"x")
        assert client.recv(1) == b"x"
