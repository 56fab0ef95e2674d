"""Passed sockets: in order, each with its number, and open at the receiving end only."""

from __future__ import annotations

import os
import socket

import pytest

from mlserver.parallel.rpc.fd_passing import (
    control_socket_from_fd,
    create_control_sockets,
    receive_fds,
    send_fd,
)


def test_connections_arrive_with_their_numbers() -> None:
    mine, theirs = create_control_sockets()
    with mine, theirs:
        assert list(receive_fds(theirs)) == []
        for number in (7, 8):
            here, there = socket.socketpair()
            with here, there:
                send_fd(mine, there, number)
                here.sendall(b"%d" % number)
        arrived = list(receive_fds(theirs))
        for number, connection in arrived:
            with connection:
                assert connection.recv(8) == b"%d" % number
                assert (
                    connection.recv(8) == b""
                )  # the other end was closed, and no other process has this end
                assert not connection.get_inheritable()
        assert [number for number, _ in arrived] == [7, 8]


def test_sending_to_a_closed_end_fails() -> None:
    mine, theirs = create_control_sockets()
    theirs.close()
    with mine, socket.socket() as connection, pytest.raises(OSError, match="refused"):
        send_fd(mine, connection, 1)


def test_an_inherited_end() -> None:
    mine, theirs = create_control_sockets()
    with mine, control_socket_from_fd(os.dup(theirs.fileno())) as inherited:
        theirs.close()
        assert list(receive_fds(inherited)) == []
        here, there = socket.socketpair()
        with here, there:
            send_fd(mine, there, 1)
        ((_, connection),) = receive_fds(inherited)
        connection.close()
