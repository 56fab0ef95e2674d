"""Kills all workers repeatedly under load: `python -m soak.worker_kills SECONDS` from `tests`.

Exit code 1: a response was wrong, missing or a server error, or a rejection had another reason than
a missing worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx

from soak.load import LoadGenerator, Step
from support.repository import write_model
from support.server import Server

WORKERS = 2
INTERVAL = 1.5  # seconds between two kills
MAX_NEW_SERIES = 8  # such as those of a model's first failure; labels per worker would add more
SUCCESSES = ("json 200", "binary 200", "grpc OK")
# Allowed errors: the retry failed too, or no worker was ready in time for one.
ALLOWED_ERRORS = (
    "Two worker processes ended while they ran this request",
    "No worker process is alive to run the model; a new one is being started",
)


class KilledWorkers(LoadGenerator):
    """Clients of every protocol, and a method that kills the workers."""

    def loops(self) -> list[Step]:
        return [self.small, self.small, self.large, self.over_grpc]

    def kill_all(self) -> None:
        """Kill every worker, replacements that are not ready included."""
        for pid in self._server.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.counts["kills of all workers"] += 1

    def count_successes(self) -> Counter[str]:
        """The number of successful responses by protocol."""
        return +Counter({what: self.counts[what] for what in SUCCESSES})


def run(folder: Path, seconds: float) -> KilledWorkers:
    """Kill the workers for `seconds`.

    Then the pool is complete again and every protocol is answered.
    """
    write_model(folder / "alone", max_batch_size=1)
    write_model(folder / "joined", max_batch_size=16, max_batch_time=0.005)
    with Server(folder, workers=WORKERS) as server:
        load = KilledWorkers(server)
        load.start()
        server.wait(
            lambda: len(load.count_successes()) == len(SUCCESSES), "every protocol was answered"
        )
        lines = count_series(server)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            load.kill_all()
            time.sleep(INTERVAL)
        server.wait_until("/v2/health/ready")
        server.wait(lambda: len(server.workers) == WORKERS, "the pool was complete again")
        before = load.count_successes()
        server.wait(
            lambda: len(load.count_successes() - before) == len(SUCCESSES),
            "every protocol was answered again",
        )
        load.stop()
        grown = count_series(server) - lines
        if grown > MAX_NEW_SERIES:
            load.wrong.append(f"the metrics page grew by {grown} lines")
    return load


def count_series(server: Server) -> int:
    """Lines of the metrics page without those that the first response of a status code adds."""
    page = httpx.get(f"{server.metrics_url}/metrics", timeout=30).text
    return sum(
        "status_code=" not in line and "grpc_code=" not in line for line in page.splitlines()
    )


def list_faults(load: KilledWorkers) -> Iterator[str]:
    """Wrong responses, and errors that are not allowed."""
    yield from load.wrong
    yield from (f"refused: {text}" for text in load.unavailable if text not in ALLOWED_ERRORS)


def main() -> int:
    seconds = float(sys.argv[1]) if sys.argv[1:] else 60.0
    with tempfile.TemporaryDirectory(prefix="mlserver-worker-kills-") as name:
        load = run(Path(name), seconds)
    faults = list(list_faults(load))
    for what, count in sorted(load.counts.items()) + load.unavailable.most_common():
        sys.stdout.write(f"{count:8,}  {what}\n")
    sys.stdout.write(f"{load.slowest:8.2f}  seconds for the slowest response\n")
    sys.stdout.write(f"{len(faults)} faults {faults[:5]}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
