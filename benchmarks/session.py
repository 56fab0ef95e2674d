"""One server's turn: start it, check every exchange, load it, note what it took."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import load, servers
from .cases import Case
from .process import ServerProcess
from .results import CLOSED, Failure, Measurement, Results, Startup, public
from .running import Running

WARM_UP = 1  # seconds of load before the first measurement of an exchange
WARM_UP_CONNECTIONS = 4
OPEN_SHARES = {"open 50 %": 0.5, "open 90 %": 0.9}


@dataclass(frozen=True)
class Plan:
    """How long and how often; which connections and wires, if not all of the cases'."""

    seconds: int
    rounds: int
    connections: tuple[int, ...] = ()
    wires: tuple[str, ...] = ()
    open_loop: bool = True

    def connections_of(self, case: Case) -> tuple[int, ...]:
        return tuple(n for n in case.connections if not self.connections or n in self.connections)

    def wires_of(self, server: servers.Server, case: Case) -> tuple[str, ...]:
        return tuple(wire for wire in server.asks(case) if not self.wires or wire in self.wires)


@dataclass(frozen=True)
class Question:
    case: Case
    wire: str
    target: load.Target


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
        first = asked[0][0]
        with Running(self._server, first, wine, log) as running:
            questions = [Question(case, wire, running.target(case, wire)) for case, wire in asked]
            try:
                ready = running.wait(first, questions[0].target)
            except load.LoadFailed as error:
                self._fail(questions[0], f"does not start: {error}")
                return
            before = running.process.memory()
            for question in questions:
                self._measure(running, question)
            after = running.process.memory()
        self._results.startups.append(
            Startup(self._server.name, first.name, self._round, ready, before, after)
        )

    def _measure(self, running: Running, question: Question) -> None:
        case = question.case
        try:
            running.check(case, question.target)
            with suppress(load.LoadFailed):
                load.closed(question.target, WARM_UP_CONNECTIONS, WARM_UP)
            best = 0.0
            for connections in self._plan.connections_of(case):
                best = max(best, self._load(running.process, question, CLOSED, connections))
            if case.open_loop and self._plan.open_loop and not question.target.exchange.grpc:
                for mode, share in OPEN_SHARES.items():
                    self._load(running.process, question, mode, load.OPEN_CONNECTIONS, best * share)
        except load.LoadFailed as error:
            self._fail(question, str(error))

    def _load(
        self,
        process: ServerProcess,
        question: Question,
        mode: str,
        connections: int,
        rate: float = 0.0,
    ) -> float:
        """One measurement, in open loop if there is a rate; returns the requests per second."""
        process.normalize()
        before = process.cpu()
        seconds, target = self._plan.seconds, question.target
        found = (
            load.opened(target, rate, seconds)
            if rate
            else load.closed(target, connections, seconds)
        )
        after = process.cpu()
        used = {pid: total - before.seconds.get(pid, 0.0) for pid, total in after.seconds.items()}
        share = 1e6 / max(found.requests, 1)
        self._results.measurements.append(
            Measurement(
                server=self._server.name,
                case=question.case.name,
                wire=question.wire,
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

    def _fail(self, question: Question, reason: str) -> None:
        failure = Failure(self._server.name, question.case.name, question.wire, public(reason))
        self._results.failures.append(failure)
