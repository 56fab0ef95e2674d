"""HTTP connections that report which server process answers them, for tests of HTTP workers."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from support.server import Server


class Connection:
    """One HTTP connection to a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
        try:
            self.ask("GET", "/v2/health/live")
            assert self._connection.sock is not None
            port = self._connection.sock.getsockname()[1]
            (self.process,) = processes_of(server, server.http_port, port)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request. Returns the status and the JSON body, None without one."""
        status, text = self._ask(method, path, body, headers)
        return status, json.loads(text) if text else None

    def _ask(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        self._connection.request(
            method, path, content, {"content-type": "application/json", **(headers or {})}
        )
        response = self._connection.getresponse()
        return response.status, response.read()

    def infer(self, model: str, inputs: list[dict[str, Any]]) -> tuple[int, Any]:
        return self.ask("POST", f"/v2/models/{model}/infer", {"inputs": inputs})

    def stream(self, model: str, inputs: list[dict[str, Any]]) -> tuple[int, list[Any]]:
        """Send a request. Returns the status and the events of the response."""
        status, text = self._ask("POST", f"/v2/models/{model}/infer_stream", {"inputs": inputs})
        return status, [
            json.loads(event.removeprefix(b"data: ")) for event in text.split(b"\n\n") if event
        ]


@contextmanager
def one_of_each(server: Server, count: int = 2) -> Iterator[list[Connection]]:
    """A connection to each of the server's HTTP worker processes, the primary first."""
    connections: dict[int, Connection] = {}
    with ExitStack() as stack:

        def found_all() -> bool:
            connection = stack.enter_context(Connection(server))
            connections.setdefault(connection.process, connection)
            return len(connections) == count

        server.wait(found_all, f"connections reached {count} processes")
        yield sorted(
            connections.values(), key=lambda candidate: candidate.process != server.process.pid
        )


def processes_of(server: Server, port: int, peer: int | None = None) -> list[int]:
    """Ids of the server's processes that hold a connection from `peer` (None.

    Any) to one of its ports.
    """
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            ours, theirs = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            if ours == port and theirs and peer in (None, theirs) and fields[3] == "01":
                inodes.add(f"socket:[{fields[9]}]")
    return [pid for pid in server.list_processes() if inodes & _sockets(pid)]


def _sockets(pid: int) -> set[str]:
    connections = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            connections.add(os.readlink(entry))
        except FileNotFoundError:
            continue
    return connections
