"""A running server with one model: start, wait until ready, check responses, stop."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from . import cases, environments, load, servers
from .cases import Case
from .process import ServerProcess

READY_LIMIT = 180.0  # seconds from start to the first correct response
RESPONSE_LIMIT = 20.0  # seconds for one response
POLL_INTERVAL = 0.02  # seconds between two requests while a server starts
MAX_REFUSALS = 50  # consecutive errors of a server that is up


class Running:
    """Context manager that stops the server and removes its files.

    Args:
        case: Defines the model; other cases of the same model may be measured too.
        wine: Folder of the trained model, with its coefficients beside it.
        log: File for the server's output.
        variables: Further environment variables of the server.
    """

    def __init__(
        self,
        server: servers.Server,
        case: Case,
        wine: Path,
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._server = server
        self._case = case
        self._wine = wine
        self._log = log
        self._variables = dict(variables or {})
        self._linear = json.loads(wine.with_suffix(".json").read_text())
        self._stack = ExitStack()

    def __enter__(self) -> Running:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        models = self._folder / "models"
        models.mkdir()
        python = environments.python(self._server.environment)
        self._place = servers.Place(self._case, models, self._wine, python, *servers.free_ports(3))
        start = self._server.start(self._place)
        variables = start.environment | self._variables
        environment = servers.environment(self._place, variables)
        process = ServerProcess(start.command, environment, start.folder or models, self._log)
        self.process = self._stack.enter_context(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def target(self, case: Case, wire: str) -> load.Target:
        """Return the request of a case over a wire to this server."""
        exchange = cases.exchange(case, wire)
        if wire == "plain" and self._server.plain_path:
            exchange = dataclasses.replace(exchange, paths=(self._server.plain_path,))
        body = self._folder / f"{case.name}-{wire}"
        body.write_bytes(exchange.body)
        return load.Target(
            exchange, self._place.grpc_port if exchange.grpc else self._place.http_port, body
        )

    def check(self, case: Case, target: load.Target) -> None:
        """Send one request.

        Raises:
            LoadFailed: the response is missing or incorrect.
        """
        body = load.send(target, RESPONSE_LIMIT)
        if self._server.checked and not self._is_correct(case, target, body):
            raise load.LoadFailed(f"wrong response: {body[:200]!r}")

    def wait(self, case: Case, target: load.Target) -> float:
        """Return the seconds from the start to the first correct response.

        Raises:
            LoadFailed: the server exited, refuses the request, or is not ready in time.
        """
        deadline = self.process.started + READY_LIMIT
        message, refusals = "", 0
        while time.monotonic() < deadline and not self.process.ended and refusals < MAX_REFUSALS:
            try:
                self.check(case, target)
            except load.LoadFailed as failure:
                message = str(failure)
                refusals = refusals + 1 if message.startswith(("422", "500", "wrong")) else 0
                time.sleep(POLL_INTERVAL)
                continue
            return time.monotonic() - self.process.started
        raise load.LoadFailed(f"{message} | {self.process.last_lines()}"[:600])

    def _is_correct(self, case: Case, target: load.Target, body: bytes) -> bool:
        try:
            return cases.is_correct(target.exchange.read(body), cases.expected(case, self._linear))
        except (KeyError, IndexError, TypeError, ValueError):
            return False
