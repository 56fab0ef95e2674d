"""All workers killed again and again, under load: `python -m soak.killing SECONDS` from this repository's `tests`.

Ends with 1 if an answer was wrong, missing or a fault of the server, or if a refusal was not for want of a worker. Nobody is to be
left without an answer after it either.
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

from soak.trouble import Step, Trouble
from support.repository import write_model
from support.server import Server

WORKERS = 2
INTERVAL = 1.5  # seconds between two killings
MORE_SERIES = 8  # such as a model's first failure; a worker of its own would have more
GOOD = ("json 200", "binary 200", "grpc OK")
# What a caller may be told: that the second try failed like the first, or that nobody came back to make one.
REFUSALS = (
    "Two worker processes ended while they ran this request",
    "No worker process is alive to run the model; a new one is being started",
)


class Killing(Trouble):
    """Users of every kind."""

    def loops(self) -> list[Step]:
        return [self.small, self.small, self.large, self.over_grpc]

    def kill_all(self) -> None:
        """The replacements that are not ready yet, too."""
        for pid in self._server.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.counts["killings of all workers"] += 1

    def well(self) -> Counter[str]:
        """How many were answered, in each form."""
        return +Counter({what: self.counts[what] for what in GOOD})


def run(folder: Path, seconds: float) -> Killing:
    """Kill for so long; after that the server is whole again, answers everybody, and ends as it should."""
    write_model(folder / "alone", max_batch_size=1)
    write_model(folder / "joined", max_batch_size=16, max_batch_time=0.005)
    with Server(folder, workers=WORKERS) as server:
        killing = Killing(server)
        killing.start()
        server.wait(lambda: len(killing.well()) == len(GOOD), "all were answered")
        lines = series(server)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            killing.kill_all()
            time.sleep(INTERVAL)
        server.wait_until("/v2/health/ready")
        server.wait(lambda: len(server.workers) == WORKERS, "the pool was full again")
        before = killing.well()
        server.wait(lambda: len(killing.well() - before) == len(GOOD), "all were answered again")
        killing.stop()
        grown = series(server) - lines
        if grown > MORE_SERIES:
            killing.wrong.append(f"the metrics page grew by {grown} lines")
    return killing


def series(server: Server) -> int:
    """Lines of the metrics page, but for those that come with the first answer of a status."""
    page = httpx.get(f"{server.metrics_url}/metrics", timeout=30).text
    return sum(
        "status_code=" not in line and "grpc_code=" not in line for line in page.splitlines()
    )


def faults(killing: Killing) -> Iterator[str]:
    """What must not have happened."""
    yield from killing.wrong
    yield from (f"refused: {text}" for text in killing.unavailable if text not in REFUSALS)


def main() -> int:
    seconds = float(sys.argv[1]) if sys.argv[1:] else 60.0
    with tempfile.TemporaryDirectory(prefix="mlserver-killing-") as name:
        killing = run(Path(name), seconds)
    found = list(faults(killing))
    for what, count in sorted(killing.counts.items()) + killing.unavailable.most_common():
        sys.stdout.write(f"{count:8,}  {what}\n")
    sys.stdout.write(
        f"{killing.slowest:8.2f}  seconds for the slowest answer\n{len(found)} faults {found[:5]}\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
