"""Measurement of one server: start it, check every request, run the load, record the results."""

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
    """Seconds and rounds of the measurements; connections and wires, empty = all of the cases."""

    seconds: int
    rounds: int
    connections: tuple[int, ...] = ()
    wires: tuple[str, ...] = ()
    open_loop: bool = True

    def get_connections(self, case: Case) -> tuple[int, ...]:
        return tuple(n for n in case.connections if not self.connections or n in self.connections)

    def get_wires(self, server: servers.Server, case: Case) -> tuple[str, ...]:
        return tuple(
            wire for wire in server.get_wires(case) if not self.wires or wire in self.wires
        )


@dataclass(frozen=True)
class Job:
    """One case over one wire."""

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
        """Measure all cases; a failure is recorded in the results, and the others continue."""
        pairs = [
            (case, wire) for case in group for wire in self._plan.get_wires(self._server, case)
        ]
        if not pairs:
            return
        first = pairs[0][0]
        with Running(self._server, first, wine, log) as running:
            jobs = [Job(case, wire, running.target(case, wire)) for case, wire in pairs]
            try:
                ready = running.wait(first, jobs[0].target)
            except load.LoadFailed as error:
                self._fail(jobs[0], f"does not start: {error}")
                return
            before = running.process.memory()
            for job in jobs:
                self._measure(running, job)
            after = running.process.memory()
        self._results.startups.append(
            Startup(self._server.name, first.name, self._round, ready, before, after)
        )

    def _measure(self, running: Running, job: Job) -> None:
        case = job.case
        try:
            running.check(case, job.target)
            with suppress(load.LoadFailed):
                load.closed(job.target, WARM_UP_CONNECTIONS, WARM_UP)
            best = 0.0
            for connections in self._plan.get_connections(case):
                best = max(best, self._load(running.process, job, CLOSED, connections))
            if case.open_loop and self._plan.open_loop and not job.target.exchange.grpc:
                for mode, share in OPEN_SHARES.items():
                    self._load(running.process, job, mode, load.OPEN_CONNECTIONS, best * share)
        except load.LoadFailed as error:
            self._fail(job, str(error))

    def _load(
        self,
        process: ServerProcess,
        job: Job,
        mode: str,
        connections: int,
        rate: float = 0.0,
    ) -> float:
        """One measurement, in open loop if there is a rate; returns the requests per second."""
        process.wait_idle()
        before = process.cpu()
        seconds, target = self._plan.seconds, job.target
        result = (
            load.opened(target, rate, seconds)
            if rate
            else load.closed(target, connections, seconds)
        )
        after = process.cpu()
        used = {pid: total - before.seconds.get(pid, 0.0) for pid, total in after.seconds.items()}
        share = 1e6 / max(result.requests, 1)
        self._results.measurements.append(
            Measurement(
                server=self._server.name,
                case=job.case.name,
                wire=job.wire,
                mode=mode,
                connections=connections,
                round=self._round,
                load=result,
                cpu_parent=used.get(process.pid, 0.0) * share,
                cpu_all=sum(used.values()) * share,
                rate=rate,
            )
        )
        return result.per_second

    def _fail(self, job: Job, reason: str) -> None:
        failure = Failure(self._server.name, job.case.name, job.wire, public(reason))
        self._results.failures.append(failure)
