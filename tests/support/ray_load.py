"""Load on a server with the engine `ray` while its cluster fails: answers are checked and counted.

`RAY_FAULTS_LOG` names a file that gets the counts of each load; `python -m support.ray_load FILE`
prints them as a table (`make ray-faults`).
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.repository import tensor, write_model
from support.server import Server

LIMIT = 10.0  # seconds, the server's `request_timeout`
SLACK = 3.0  # seconds beyond it that a busy machine may take to answer
CALLERS = 8
HEADROOM_MIB = 1024  # what a model with the parameter `limit` may allocate
LOG = "RAY_FAULTS_LOG"

# y = 3x + 1 after 10 to 30 ms; a negative x is an action.
SOURCE = """
import ctypes
import os
import random
import resource
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

MIB = 1024 * 1024
SECONDS = 8


class Affine(MLModel):
    async def load(self):
        while Path(__file__).with_name("block-load").exists():
            time.sleep(0.05)
        headroom = self.settings.parameters.extra.get("headroom_mib")
        if headroom is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + headroom * MIB
            hard_limit = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
        return True

    def predict(self, payload):
        x = payload.inputs[0].data.root[0]
        if x == -1.0:
            # At once: an allocation that fails leaves memory for the threads of other requests.
            b"1" * (4096 * MIB)
        if x == -3.0:
            # Native code that holds the interpreter's lock: this process reads nothing.
            ctypes.PyDLL(None).sleep(SECONDS)
        if x == -2.0:
            values = [float(os.getpid())]
        else:
            time.sleep(random.uniform(0.01, 0.03))
            values = [3.0 * x + 1.0]
        output = ResponseOutput(name="y", shape=[1], datatype="FP64", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
FILL_MEMORY, READ_PID, HOLD_LOCK = -1.0, -2.0, -3.0


@dataclass
class Answers:
    """What the callers of a load received.

    Attributes:
        statuses: Number of answers by status.
        incorrect: Answers of status 200 with another value than the expected one.
        longest: Seconds of the longest request.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    incorrect: list[str] = field(default_factory=list)
    longest: float = 0.0

    def check(self, limit: float) -> None:
        """Fail if an answer was incorrect, late, or an error that is not the cluster's fault."""
        assert not self.incorrect
        assert self.longest < limit + SLACK
        assert set(self.statuses) <= {200, 503, 504}, self.statuses
        assert self.statuses[200] > 0


def start(
    environment: Mapping[str, str],
    address: str,
    folder: Path,
    name: str,
    ready: str | None = "/v2/health/ready",
    limit: float = LIMIT,
) -> Server:
    """Return a server with the engine `ray`.

    Args:
        environment: Variables of processes that use the cluster.
        name: The server's name, under which servers share replicas.
        ready: See `Server`.
        limit: Its `request_timeout`.
    """
    env = {
        **environment,
        "MLSERVER_ENGINE": "ray",
        "MLSERVER_RAY": json.dumps({"address": address}),
        "MLSERVER_SERVER_NAME": name,
        "MLSERVER_REQUEST_TIMEOUT": str(limit),
    }
    return Server(folder, env=env, tracebacks=True, ready=ready)


def write_affine(
    folder: Path,
    name: str = "affine",
    headroom_mib: int | None = None,
    settings: dict[str, Any] | None = None,
    **ray: Any,
) -> Path:
    """Write a model into a repository; return the repository.

    Args:
        headroom_mib: What a replica may allocate after its load (`RLIMIT_AS`); None = no limit.
        settings: Further fields of `model-settings.json`.
        ray: Settings of its replicas; default: two, of half a CPU each.
    """
    if "autoscaling" not in ray:
        ray = {"num_replicas": 2, **ray}
    ray = {"num_cpus": 0.5, **ray}
    extra = {} if headroom_mib is None else {"headroom_mib": headroom_mib}
    write_model(
        folder / name,
        "Affine",
        source=SOURCE,
        parameters={"extra": extra},
        ray=ray,
        **(settings or {}),
    )
    return folder


@contextmanager
def load(
    server: Server,
    fault: str,
    models: tuple[str, ...] = ("affine",),
    pause: float = 0.0,
    limit: float = LIMIT,
) -> Iterator[Answers]:
    """Send requests from several callers until the end of the block.

    Args:
        fault: What happens meanwhile, for the table.
        pause: Seconds of each caller between an answer and its next request.
        limit: The server's `request_timeout`.
    """
    answers, stopped, lock = Answers(), threading.Event(), threading.Lock()

    def send(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=server.url, timeout=limit + 30) as client:
            while not stopped.wait(pause):
                x, model = float(rng.randrange(10**6)), rng.choice(models)
                body = json.dumps({"inputs": [tensor("x", [x])]})
                began = time.monotonic()
                response = client.post(f"/v2/models/{model}/infer", content=body)
                seconds = time.monotonic() - began
                with lock:
                    answers.statuses[response.status_code] += 1
                    answers.longest = max(answers.longest, seconds)
                    if response.status_code == 200:
                        values = response.json()["outputs"][0]["data"]
                        if values != [3 * x + 1]:
                            answers.incorrect.append(f"{x}: {values}")

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(send, seed) for seed in range(CALLERS)]
        try:
            yield answers
        finally:
            stopped.set()
        for caller in callers:
            caller.result()
    _record(fault, answers)
    answers.check(limit)


def read_pid(server: Server, model: str = "affine") -> int | None:
    """The process of the replica that answers; None = none did."""
    response = server.infer(model, [tensor("x", [READ_PID])])
    if response.status_code != 200:
        return None
    return int(response.json()["outputs"][0]["data"][0])


def find_pids(
    server: Server, count: int, excluded: frozenset[int] = frozenset(), model: str = "affine"
) -> set[int]:
    """Wait until `count` replicas answer that are not excluded; return their processes."""
    pids: set[int] = set()

    def has_enough() -> bool:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: read_pid(server, model), range(4)))
        pids.update(pid for pid in answers if pid is not None and pid not in excluded)
        return len(pids) >= count

    server.wait(has_enough, f"{count} replicas of {model} answered")
    return pids


# -- the table --


def _record(fault: str, answers: Answers) -> None:
    if LOG in os.environ:
        entry = {"fault": fault, "longest": answers.longest, "statuses": answers.statuses}
        with open(os.environ[LOG], "a") as log:
            log.write(f"{json.dumps(entry)}\n")


def build_table(lines: list[str]) -> str:
    """Return a table of Markdown: what the callers received in all runs, by fault."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        entry = json.loads(line)
        entries.setdefault(entry["fault"], []).append(entry)
    rows = [
        "| fault | runs | answers | 503 | 504 | slowest answer (s): median and longest of runs |",
        "|---|---|---|---|---|---|",
    ]
    for fault, runs in entries.items():
        statuses: Counter[str] = sum((Counter(run["statuses"]) for run in runs), Counter())
        longest = [run["longest"] for run in runs]
        seconds = f"{statistics.median(longest):.1f}, {max(longest):.1f}"
        counts = f"{statuses.total():,} | {statuses['503']} | {statuses['504']}"
        rows.append(f"| {fault} | {len(runs)} | {counts} | {seconds} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(build_table(Path(sys.argv[1]).read_text().splitlines()) + "\n")
