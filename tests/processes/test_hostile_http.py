"""Malicious HTTP/1.1 clients: ambiguous requests, floods, and slow or silent connections.

Every test ends with a valid request over another connection to the same server.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from support.raw_http import Wire, infer, request, wire
from support.repository import write_model, write_server_settings
from support.server import Server

HEADER, BODY, IDLE = 1.0, 1.5, 2.0  # seconds; see the fixture
CONNECTIONS = 40
HEAD = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = """
import asyncio

from mlserver import MLModel


class Endless(MLModel):
    async def load(self):
        self.begun = self.stopped = 0
        return True

    async def predict(self, payload):
        if payload.id == "how many?":
            return self.count(payload)
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped += 1

    def count(self, payload):
        from mlserver.codecs import NumpyCodec
        from mlserver.types import InferenceResponse
        import numpy as np

        output = NumpyCodec.encode_output("n", np.array([self.begun, self.stopped]))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    limits = {"header_timeout": HEADER, "body_timeout": BODY, "keep_alive_timeout": IDLE}
    write_server_settings(folder, max_body_bytes=1_000_000, max_connections=CONNECTIONS, **limits)
    write_model(folder / "echo")
    write_model(folder / "endless", "Endless", source=ENDLESS)
    with Server(folder) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    yield running
    with wire(running.http_port) as connection:
        connection.send(infer("echo", 7.5))
        status, _, body = connection.answer()
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [7.5])


def refused(connection: Wire, *statuses: int) -> str:
    """Read the connection's last response, which must be an error in the usual form.

    Returns its text.
    """
    status, headers, body = connection.answer()
    assert status in statuses, body
    assert headers["connection"] == "close"
    connection.ended()
    text = json.loads(body)["error"]
    assert isinstance(text, str)
    return text


# -- ambiguous requests --

SMUGGLED: dict[str, bytes] = {
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "one length twice": HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": HEAD + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": HEAD + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": HEAD + b"Content-Length: -4\r\n\r\nabcd",
    "a hexadecimal length": HEAD + b"Content-Length: 0x4\r\n\r\nabcd",
    "an empty length": HEAD + b"Content-Length: \r\n\r\nabcd",
    "a length of 23 digits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabcd",
    "a blank before the colon": HEAD + b"Content-Length : 4\r\n\r\nabcd",
    "a folded header": HEAD + b"X-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": b"POST /v2 HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "bare LF in a value": HEAD + b"X-A: b\nContent-Length: 4\r\n\r\n",
    "bare CR in a value": HEAD + b"X-A: b\rContent-Length: 4\r\n\r\n",
    "NUL in a value": HEAD + b"X-A: a\0b\r\n\r\n",
    "a blank in a name": HEAD + b"X A: b\r\n\r\n",
    "no colon": HEAD + b"Content-Length 0\r\n\r\n",
    "no name": HEAD + b": b\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "no host": b"POST /v2 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding inside of chunks": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding outside of chunks": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "LF after a chunk's size": CHUNKED + b"4\nabcd\n0\n\n",
    "LF in a chunk's extension": CHUNKED + b"4;a\nabcd\r\n0\r\n\r\n",
    "CR in a chunk's extension": CHUNKED + b"4;a\rX\r\nabcd\r\n0\r\n\r\n",
    "a blank after a chunk's size": CHUNKED + b"4 \r\nabcd\r\n0\r\n\r\n",
    "a chunk of 0x4": CHUNKED + b"0x4\r\nabcd\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffffffff\r\nabcd\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"4\r\nabcde\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /v2\r\n\r\n",
    "HTTP/1.2": b"GET /v2 HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2 without an upgrade": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"FOO /v2 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "tabs in the first line": b"GET\t/v2\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the path": b"GET /v2\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "not ASCII in the path": "GET /v2/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\0" * 160,
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("case", SMUGGLED)
def test_ambiguous_requests_are_rejected(server: Server, case: str) -> None:
    with wire(server.http_port) as connection:
        connection.send(SMUGGLED[case] + request("GET", "/v2"))
        refused(connection, 400, 505)


def test_a_rejected_request_is_answered_once(server: Server) -> None:
    """The responses to earlier requests arrive complete and in order; then the server closes."""
    with wire(server.http_port) as connection:
        connection.send(infer("echo", 1.5) + SMUGGLED["two lengths"] + infer("echo", 2.5))
        status, _, body = connection.answer()
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [1.5])
        connection.ended()


def test_a_fault_after_the_answer_is_not_answered(server: Server) -> None:
    """A request that needs no body has already received its one response."""
    with wire(server.http_port) as connection:
        connection.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.answer()[0] == 404
        connection.send(b"not a chunk\r\n")
        connection.ended()


def test_trailers_are_not_treated_as_headers(server: Server) -> None:
    body = infer("echo", 3.5).partition(b"\r\n\r\n")[2]
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
    with wire(server.http_port) as connection:
        connection.send(
            head + b"%x\r\n%s\r\n0\r\nContent-Encoding: gzip\r\n\r\n" % (len(body), body)
        )
        assert connection.answer()[0] == 200


# -- sizes --


@pytest.mark.parametrize("trailer", [b"a:b\r\n", b"x"])
def test_endless_trailers(server: Server, trailer: bytes) -> None:
    with wire(server.http_port) as connection:
        connection.send(CHUNKED + b"0\r\n")
        connection.send(400_000 // len(trailer) * trailer)  # the first read is not counted
        refused(connection, 431)


def test_large_headers(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(request("GET", "/v2", None, "x-long: " + 70_000 * "x"))
        assert "65536" in refused(connection, 431)


def test_a_header_larger_than_the_limit(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + 70_000 * b"x")
        refused(connection, 431)


def test_many_headers(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(request("GET", "/v2", None, *(f"x-{number}: 1" for number in range(300))))
        refused(connection, 431)


def test_a_declared_body_of_100_gb(server: Server) -> None:
    """Rejected before the body is read."""
    with wire(server.http_port) as connection:
        connection.send(HEAD + b"Content-Length: 107374182400\r\nExpect: 100-continue\r\n\r\n")
        assert "max_body_bytes" in refused(connection, 413)


def test_a_client_that_keeps_sending_reads_the_rejection(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(HEAD + b"Content-Length: 107374182400\r\n\r\n" + 200_000 * b" ")
        status, _, _ = connection.answer()
        assert status == 413


def test_a_flood_of_chunks(server: Server) -> None:
    """Three megabytes, a byte at a time."""
    with wire(server.http_port) as connection:
        connection.send(CHUNKED)
        try:
            for _ in range(60):
                connection.send(50_000 * b"1\r\n \r\n")
        except OSError:
            return  # the server has reset the connection, which may discard its response
        refused(connection, 413)


def test_a_flood_of_requests(server: Server) -> None:
    """Pipelined requests beyond the limit: the first are answered, then the connection closes."""
    with wire(server.http_port) as connection:
        connection.send(500 * request("GET", "/v2"))
        count = 0
        while True:
            try:
                status, _, _ = connection.answer()
            except EOFError:
                break
            assert status in (200, 400)
            count += status == 200
        assert 1 <= count <= 500


# -- time --


def test_a_silent_connection_is_closed(server: Server) -> None:
    with wire(server.http_port) as connection:
        assert connection.ended() < IDLE + 5


def test_an_idle_connection_is_closed(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(infer("echo", 1.0))
        assert connection.answer()[0] == 200
        assert connection.ended() < IDLE + 5


def test_headers_that_exceed_the_timeout(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
        assert "header_timeout" in refused(connection, 408)


def test_headers_a_byte_at_a_time(server: Server) -> None:
    """Each byte arrives within the timeout, the whole header does not."""
    with wire(server.http_port) as connection:
        connection.socket.settimeout(HEADER / 4)
        for byte in b"GET /v2 HTTP/1.1\r\nHost: " + 1000 * b"x":
            try:
                connection.send(bytes([byte]))
                if connection.socket.recv(1, socket.MSG_PEEK) is not None:
                    break
            except TimeoutError:
                continue
        connection.socket.settimeout(10)
        refused(connection, 408)


def test_a_body_that_exceeds_the_timeout(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(HEAD + b"Content-Length: 10\r\n\r\n{")
        assert "body" in refused(connection, 408)


def test_an_unused_body_is_awaited_up_to_the_timeout(server: Server) -> None:
    with wire(server.http_port) as connection:
        connection.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert connection.answer()[0] == 404
        connection.ended()


def test_a_caller_that_does_not_read(server: Server) -> None:
    """The client reads none of responses larger than the buffers: the connection is closed."""
    value = json.dumps([0.123456789] * 80_000)
    body = (
        f'{{"inputs":[{{"name":"x","shape":[80000],"datatype":"FP64","data":{value}}}]}}'.encode()
    )
    with wire(server.http_port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            send_without_end(connection, request("POST", "/v2/models/echo/infer", body))


def send_without_end(connection: Wire, data: bytes) -> None:
    while True:
        connection.send(data)


# -- number of connections --


def test_more_connections_than_allowed(server: Server) -> None:
    held = [Wire(server.http_port) for _ in range(CONNECTIONS + 5)]
    try:
        assert "max_connections" in refused(held[-1], 503)
    finally:
        for connection in held:
            connection.socket.close()


# -- disconnects --


def test_a_disconnect_cancels_the_request(server: Server) -> None:
    def counted() -> tuple[int, int]:
        """The numbers of requests that the model has started and of those that were cancelled."""
        answer = server.infer(
            "endless",
            [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}],
            id="how many?",
        )
        assert answer.status_code == 200, answer.text
        begun, stopped = answer.json()["outputs"][0]["data"]
        return begun, stopped

    def has_begun(requests: int) -> bool:
        return counted()[0] == requests

    begun, stopped = counted()
    for more in range(1, 4):
        with wire(server.http_port) as connection:
            connection.send(infer("endless", 1.0))
            server.wait(partial(has_begun, begun + more), "the model runs")
    server.wait(lambda: counted()[1] == stopped + 3, "the model was cancelled")
    label = 'path="/v2/models/{model_name}/infer",status_code="499"'

    def is_recorded() -> bool:
        page = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
        lines = [line for line in page.splitlines() if label in line and "_requests_total" in line]
        return bool(lines) and float(lines[0].rpartition(" ")[2]) >= 3

    server.wait(is_recorded, "the requests were in the metrics")
