"""A server that runs with one model: started, waited for until its first right answer, asked and checked, ended."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from . import cases, environments, load, servers
from .cases import Case
from .process import ServerProcess

READY_LIMIT = 180.0  # seconds from start to the first right answer
ANSWER_LIMIT = 20.0  # seconds for one answer
ASK_AGAIN = 0.02  # seconds between two tries while a server starts
REFUSALS = 50  # answers in a row that say that the server is up and will not answer this


class Running:
    """Leaving the block ends the server and removes its files.

    Args:
        case: What decides the model; other cases of the same model may be asked too.
        wine: The trained model's folder, with its coefficients beside it.
        log: Where the server's output goes.
    """

    def __init__(self, server: servers.Server, case: Case, wine: Path, log: Path) -> None:
        self._server = server
        self._case = case
        self._wine = wine
        self._log = log
        self._linear = json.loads(wine.with_suffix(".json").read_text())
        self._stack = ExitStack()

    def __enter__(self) -> Running:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        models = self._folder / "models"
        models.mkdir()
        python = environments.python(self._server.environment)
        self._place = servers.Place(self._case, models, self._wine, python, *servers.free_ports(3))
        start = self._server.start(self._place)
        environment = servers.environment(self._place, start.environment)
        process = ServerProcess(start.command, environment, start.folder or models, self._log)
        self.process = self._stack.enter_context(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def target(self, case: Case, wire: str) -> load.Target:
        """The case's request over a wire, addressed to this server."""
        exchange = cases.exchange(case, wire)
        if wire == "plain" and self._server.plain_path:
            exchange = dataclasses.replace(exchange, paths=(self._server.plain_path,))
        body = self._folder / f"{case.name}-{wire}"
        body.write_bytes(exchange.body)
        return load.Target(
            exchange, self._place.grpc_port if exchange.grpc else self._place.http_port, body
        )

    def check(self, case: Case, target: load.Target) -> None:
        """Ask once.

        Raises:
            LoadFailed: There is no answer, or a wrong one.
        """
        answer = load.ask(target, ANSWER_LIMIT)
        if self._server.checked and not self._is_right(case, target, answer):
            raise load.LoadFailed(f"wrong answer: {answer[:200]!r}")

    def wait(self, case: Case, target: load.Target) -> float:
        """Seconds from the start to the first right answer.

        Raises:
            LoadFailed: It ended, refuses, or takes too long.
        """
        deadline = self.process.started + READY_LIMIT
        problem, refusals = "", 0
        while time.monotonic() < deadline and not self.process.ended and refusals < REFUSALS:
            try:
                self.check(case, target)
            except load.LoadFailed as failure:
                problem = str(failure)
                refusals = refusals + 1 if problem.startswith(("422", "500", "wrong")) else 0
                time.sleep(ASK_AGAIN)
                continue
            return time.monotonic() - self.process.started
        raise load.LoadFailed(f"{problem} | {self.process.last_lines()}"[:600])

    def _is_right(self, case: Case, target: load.Target, answer: bytes) -> bool:
        try:
            return cases.right(target.exchange.read(answer), cases.expected(case, self._linear))
        except (KeyError, IndexError, TypeError, ValueError):
            return False
