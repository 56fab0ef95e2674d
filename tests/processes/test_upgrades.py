"""Requests with `Upgrade.

H2c` and the like are answered over HTTP/1.1 and validated like all others.
Java's HttpClient, Spring, Ktor and `curl --http2` send them by default; RFC 9110 7.8 lets a
server ignore the header.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from processes.test_hostile_http import SMUGGLED, refused
from support.raw_http import Wire, infer, request, wire
from support.repository import write_model
from support.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("upgrades")
    write_model(folder / "echo")
    with Server(folder) as running:
        yield running


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "h2c of curl": (
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    ),
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "TLS": b"UPGRADE: TLS/1.3, HTTP/1.1\r\nconnection:upgrade\r\n",
    "several": b"Upgrade: foo\r\nConnection: upgrade\r\nUpgrade: bar/2\r\n",
    "without a connection header": b"Upgrade: h2c\r\n",
}


def upgraded(message: bytes, case: str) -> bytes:
    """A request with an `Upgrade` header."""
    first, _, rest = message.partition(b"\r\n")
    return first + b"\r\n" + UPGRADES[case] + rest


def chunked(message: bytes) -> bytes:
    head, _, body = message.partition(b"\r\n\r\n")
    head = b"\r\n".join(
        line for line in head.split(b"\r\n") if not line.startswith(b"content-length")
    )
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:]))
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def numbers_of(connection: Wire) -> list[float]:
    status, headers, body = connection.answer()
    assert status == 200, body
    assert "connection" not in headers
    data: list[float] = json.loads(body)["outputs"][0]["data"]
    return data


@pytest.mark.parametrize("case", UPGRADES)
@pytest.mark.parametrize("piece", [1, 7, 1_000_000])
def test_a_request_for_another_protocol_is_answered(server: Server, case: str, piece: int) -> None:
    """Plain bodies, chunked bodies and pipelined requests; the connection stays open."""
    messages = upgraded(infer("echo", 1.5), case) + upgraded(chunked(infer("echo", 2.5)), case)
    messages += infer("echo", 3.5) + upgraded(infer("echo", 4.5), case)
    with wire(server.http_port) as connection:
        for at in range(0, len(messages), piece):
            connection.send(messages[at : at + piece])
        assert [numbers_of(connection) for _ in range(4)] == [[1.5], [2.5], [3.5], [4.5]]
        connection.send(upgraded(request("GET", "/v2"), case))
        assert connection.answer()[0] == 200
        connection.send(infer("echo", 5.5))
        assert numbers_of(connection) == [5.5]


def test_an_upgrade_that_awaits_permission_for_its_body(server: Server) -> None:
    head, _, body = infer("echo", 1.5).partition(b"\r\n\r\n")
    with wire(server.http_port) as connection:
        connection.send(upgraded(head + b"\r\nExpect: 100-continue\r\n\r\n", "h2c"))
        assert connection.answer()[0] == 100
        connection.send(body)
        assert numbers_of(connection) == [1.5]


def test_an_upgrade_over_a_connection_that_ends(server: Server) -> None:
    message = infer("echo", 1.5).replace(
        b"\r\n", b"\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n", 1
    )
    with wire(server.http_port) as connection:
        connection.send(message)
        status, headers, _ = connection.answer()
        assert (status, headers["connection"]) == (200, "close")
        connection.ended()


@pytest.mark.parametrize("case", [case for case in SMUGGLED if SMUGGLED[case].startswith(b"POST")])
def test_an_upgrade_is_validated_like_other_requests(server: Server, case: str) -> None:
    with wire(server.http_port) as connection:
        connection.send(upgraded(SMUGGLED[case], "h2c") + request("GET", "/v2"))
        refused(connection, 400, 505)


def test_large_headers_of_an_upgrade(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(upgraded(request("GET", "/v2", None, "x-long: " + 70_000 * "x"), "h2c"))
        assert "65536" in refused(connection, 431)
