"""One server's turn: start it, wait for its first right answer, check every exchange, load it, end it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cases, environments, load, servers
from .cases import Case
from .process import Memory, ServerProcess
from .results import CLOSED, Failure, Measurement, Results, Startup

READY_LIMIT = 180.0  # seconds from start to the first right answer
ANSWER_LIMIT = 20.0  # seconds for one answer
ASK_AGAIN = 0.02  # seconds between two tries while a server starts
REFUSALS = 50  # answers in a row that say that the server is up and will not answer this
WARM_UP = 1  # seconds of load before the first measurement of an exchange
WARM_UP_CONNECTIONS = 8
OPEN_SHARES = {"open 50 %": 0.5, "open 90 %": 0.9}


@dataclass(frozen=True)
class Plan:
    """How long and how often; which connections, if not those of the cases."""

    seconds: int
    rounds: int
    connections: tuple[int, ...] = ()
    wires: tuple[str, ...] = ()
    open_loop: bool = True

    def connections_of(self, case: Case) -> tuple[int, ...]:
        return tuple(n for n in case.connections if not self.connections or n in self.connections)

    def wires_of(self, server: servers.Server, case: Case) -> tuple[str, ...]:
        return tuple(wire for wire in server.asks(case) if not self.wires or wire in self.wires)


class Turn:
    """One start of one server, for cases of the same model."""

    def __init__(self, server: servers.Server, plan: Plan, results: Results, number: int) -> None:
        self._server = server
        self._plan = plan
        self._results = results
        self._round = number

    def run(self, group: Sequence[Case], wine: Path, log: Path) -> None:
        """Measure all; what fails is noted in the results, and the rest goes on."""
        asked = [(case, wire) for case in group for wire in self._plan.wires_of(self._server, case)]
        if not asked:
            return
        linear = json.loads(wine.with_suffix(".json").read_text())
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            place = self._place(asked[0][0], folder, wine)
            with self._start(place, log) as process:
                targets = [(case, wire, self._target(place, case, wire)) for case, wire in asked]
                try:
                    ready = self._wait(process, targets, linear)
                except load.LoadFailed as problem:
                    self._fail(asked[0][0], asked[0][1], f"does not start: {problem}")
                    return
                before = process.memory()
                for case, wire, target in targets:
                    self._measure(process, case, wire, target, linear)
                self._started(asked[0][0], ready, before, process.memory())

    # -- the start --

    def _place(self, case: Case, folder: Path, wine: Path) -> servers.Place:
        models = folder / "models"
        models.mkdir()
        python = environments.python(self._server.environment)
        return servers.Place(case, models, wine, python, *servers.free_ports(3))

    def _start(self, place: servers.Place, log: Path) -> ServerProcess:
        start = self._server.start(place)
        environment = servers.environment(place, start.environment)
        return ServerProcess(start.command, environment, start.folder or place.folder, log)

    def _target(self, place: servers.Place, case: Case, wire: str) -> load.Target:
        exchange = cases.exchange(case, wire)
        if wire == "plain" and self._server.plain_path:
            exchange = dataclasses.replace(exchange, paths=(self._server.plain_path,))
        body = place.folder.parent / f"{case.name}-{wire}"
        body.write_bytes(exchange.body)
        return load.Target(exchange, place.grpc_port if exchange.grpc else place.http_port, body)

    def _wait(
        self, process: ServerProcess, targets: list[tuple[Case, str, load.Target]], linear: dict[str, object]
    ) -> float:
        """Seconds from the start to the first right answer."""
        case, _, target = targets[0]
        truth = cases.expected(case, linear)
        deadline = process.started + READY_LIMIT
        problem, refusals = "", 0
        while time.monotonic() < deadline and not process.ended and refusals < REFUSALS:
            try:
                answer = load.ask(target, ANSWER_LIMIT)
            except load.LoadFailed as failure:
                problem = str(failure)
                refusals = refusals + 1 if problem.startswith(("422", "500")) else 0
                time.sleep(ASK_AGAIN)
                continue
            seconds = time.monotonic() - process.started
            if not self._is_right(target, answer, truth):
                raise load.LoadFailed(f"wrong answer: {answer[:200]!r}")
            return seconds
        raise load.LoadFailed(f"{problem} | {process.last_lines()}"[:600])

    # -- the measurements --

    def _measure(
        self, process: ServerProcess, case: Case, wire: str, target: load.Target, linear: dict[str, object]
    ) -> None:
        try:
            answer = load.ask(target, ANSWER_LIMIT)
            if not self._is_right(target, answer, cases.expected(case, linear)):
                raise load.LoadFailed(f"wrong answer: {answer[:200]!r}")
            load.closed(target, WARM_UP_CONNECTIONS, WARM_UP)
            best = 0.0
            for connections in self._plan.connections_of(case):
                best = max(best, self._load(process, case, wire, target, CLOSED, connections))
            if case.open_loop and self._plan.open_loop and not target.exchange.grpc:
                for mode, share in OPEN_SHARES.items():
                    self._load(process, case, wire, target, mode, load.OPEN_CONNECTIONS, best * share)
        except load.LoadFailed as problem:
            self._fail(case, wire, str(problem))

    def _load(
        self,
        process: ServerProcess,
        case: Case,
        wire: str,
        target: load.Target,
        mode: str,
        connections: int,
        rate: float = 0.0,
    ) -> float:
        """One measurement; returns the requests per second."""
        before = process.cpu()
        seconds = self._plan.seconds
        found = load.opened(target, rate, seconds) if rate else load.closed(target, connections, seconds)
        after = process.cpu()
        used = {pid: total - before.seconds.get(pid, 0.0) for pid, total in after.seconds.items()}
        share = 1e6 / max(found.requests, 1)
        self._results.measurements.append(
            Measurement(
                server=self._server.name,
                case=case.name,
                wire=wire,
                mode=mode,
                connections=connections,
                round=self._round,
                load=found,
                cpu_parent=used.get(process.pid, 0.0) * share,
                cpu_all=sum(used.values()) * share,
                rate=rate,
            )
        )
        return found.per_second

    def _fail(self, case: Case, wire: str, reason: str) -> None:
        self._results.failures.append(Failure(self._server.name, case.name, wire, " ".join(reason.split())))

    def _started(self, case: Case, ready: float, before: Memory, after: Memory) -> None:
        self._results.startups.append(Startup(self._server.name, case.name, self._round, ready, before, after))

    def _is_right(self, target: load.Target, answer: bytes, truth: list[object]) -> bool:
        if not self._server.checked:
            return True
        try:
            return cases.right(target.exchange.read(answer), truth)
        except (KeyError, IndexError, TypeError, ValueError):
            return False
