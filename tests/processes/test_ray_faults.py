"""Faults in a Ray cluster of three simulated nodes: every caller is answered, none incorrectly.

`make ray-faults TIMES=10` repeats them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.network import Network
from support.ports import free_ports
from support.ray_cluster import MARKER, RayCluster, find_reason_to_skip
from support.repository import tensor, write_model
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.ray(own_cluster=True), pytest.mark.timeout(400)]

LIMIT = 10.0  # seconds, the server's `request_timeout`
SLACK = 3.0  # seconds beyond it that a busy machine may take to answer
CALLERS = 8

# y = 3x + 1 after 10 to 30 ms; a negative x is an action.
SOURCE = """
import os
import random
import time

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Affine(MLModel):
    def predict(self, payload):
        x = payload.inputs[0].data.root[0]
        if x == -1.0:
            bytearray(1 << 46)
        if x == -2.0:
            values = [float(os.getpid())]
        else:
            time.sleep(random.uniform(0.01, 0.03))
            values = [3.0 * x + 1.0]
        output = ResponseOutput(name="y", shape=[1], datatype="FP64", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


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

    def check(self) -> None:
        """Fail if an answer was incorrect, late, or an error that is not the cluster's fault."""
        assert not self.incorrect
        assert self.longest < LIMIT + SLACK
        assert set(self.statuses) <= {200, 503, 504}, self.statuses
        assert self.statuses[200] > 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head node without CPUs for replicas, and two nodes with 2 CPUs each."""
    reason = find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    network = Network()
    with network.entered(), RayCluster([0, 2, 2]) as nodes:
        yield nodes
    network.close()


def start(
    cluster: RayCluster, folder: Path, name: str, ready: str | None = "/v2/health/ready"
) -> Server:
    variables = cluster.environment
    variables.pop(MARKER)  # the end of the cluster must not end the server
    env = {
        **variables,
        "MLSERVER_ENGINE": "ray",
        "MLSERVER_RAY": json.dumps({"address": cluster.address}),
        "MLSERVER_SERVER_NAME": name,
        "MLSERVER_REQUEST_TIMEOUT": str(LIMIT),
    }
    return Server(folder, env=env, tracebacks=True, ready=ready)


def write_affine(folder: Path, name: str = "affine", **ray: Any) -> Path:
    ray = {"num_replicas": 2, "num_cpus": 0.5, **ray}
    write_model(folder / name, "Affine", source=SOURCE, ray=ray)
    return folder


@contextmanager
def load(server: Server, models: tuple[str, ...] = ("affine",)) -> Iterator[Answers]:
    """Send requests from `CALLERS` callers until the end of the block."""
    answers, stopped, lock = Answers(), threading.Event(), threading.Lock()

    def send(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=server.url, timeout=LIMIT + 30) as client:
            while not stopped.is_set():
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
    answers.check()


def read_pid(server: Server, model: str = "affine") -> int | None:
    """The process of the replica that answers; None = none did."""
    response = server.infer(model, [tensor("x", [-2.0])])
    if response.status_code != 200:
        return None
    return int(response.json()["outputs"][0]["data"][0])


def find_pids(server: Server, count: int, excluded: frozenset[int] = frozenset()) -> set[int]:
    """Wait until `count` replicas answer that are not excluded; return their processes."""
    pids: set[int] = set()

    def has_enough() -> bool:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: read_pid(server), range(4)))
        pids.update(pid for pid in answers if pid is not None and pid not in excluded)
        return len(pids) >= count

    server.wait(has_enough, f"{count} replicas answered")
    return pids


def test_replicas_that_are_killed_while_they_compute(cluster: RayCluster, tmp_path: Path) -> None:
    with start(cluster, write_affine(tmp_path), "killed") as server:
        dead: frozenset[int] = frozenset()
        with load(server) as answers:
            for _ in range(3):
                victim = find_pids(server, 2, dead).pop()
                os.kill(victim, signal.SIGKILL)
                dead |= {victim}
            find_pids(server, 2, dead)
        assert answers.statuses[200] > 50


def test_both_replicas_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    with start(cluster, write_affine(tmp_path), "both") as server:
        victims = find_pids(server, 2)
        with load(server):
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            find_pids(server, 1, frozenset(victims))


def test_a_replica_that_hangs(cluster: RayCluster, tmp_path: Path) -> None:
    """Its callers get 504 at their limit; the others are answered by the other replica."""
    with start(cluster, write_affine(tmp_path), "hangs") as server:
        stuck, other = find_pids(server, 2)
        with load(server) as answers:
            os.kill(stuck, signal.SIGSTOP)
            server.wait_for_line("does not react in a request past its time limit")
            for _ in range(20):
                assert read_pid(server) == other
            os.kill(stuck, signal.SIGKILL)
            find_pids(server, 2, frozenset({stuck}))
        assert answers.statuses[504] <= CALLERS


def test_a_model_that_asks_for_too_much_memory(cluster: RayCluster, tmp_path: Path) -> None:
    with start(cluster, write_affine(tmp_path), "memory") as server:
        response = server.infer("affine", [tensor("x", [-1.0])])
        assert response.status_code == 500
        assert "MemoryError" in response.json()["error"]
        with load(server) as answers:
            find_pids(server, 2)
        assert set(answers.statuses) == {200}


def test_a_cluster_that_comes_later_goes_away_and_returns(tmp_path: Path) -> None:
    """The server starts without it, is not ready without it, says why, and recovers."""
    write_affine(tmp_path, num_replicas=1)
    network = Network()
    with network.entered():
        (port,) = free_ports(1)
        cluster = RayCluster([2], port)
        cluster.address = f"127.0.0.1:{port}"
        with start(cluster, tmp_path, "absent", ready=None) as server:
            server.wait_for_line(f"no connection to the Ray cluster '127.0.0.1:{port}'")
            assert server.get("/v2/health/live").status_code == 200
            assert server.get("/v2/health/ready").status_code != 200
            with cluster:
                server.wait_until("/v2/health/ready")
                first = read_pid(server)
            server.wait(lambda: server.get("/v2/health/ready").status_code != 200, "not ready")
            response = server.infer("affine", [tensor("x", [1.0])])
            assert response.status_code == 503
            assert "No replica of the model is alive" in response.json()["error"]
            with RayCluster([2], port):
                server.wait_until("/v2/health/ready")
                assert read_pid(server) not in (None, first)
    network.close()


def test_ten_models_on_three_nodes_and_lost_nodes(cluster: RayCluster, tmp_path: Path) -> None:
    names = tuple(f"affine-{number}" for number in range(10))
    for number, name in enumerate(names):
        write_affine(tmp_path, name, num_replicas=1 + number % 3, num_cpus=0.1)
    with start(cluster, tmp_path, "ten") as server:
        replicas = cluster.read_replicas()
        ours = Counter(
            replica["node"] for replica in replicas if "mlserver/ten/" in replica["name"]
        )
        assert sum(ours.values()) == sum(1 + number % 3 for number in range(10))
        assert set(ours) == {1, 2}  # the head node has no CPUs
        cluster.add_node(2)  # the fourth: without a replica
        with load(server, names):
            cluster.kill_node(3)
            time.sleep(1)
            cluster.kill_node(2)
            for name in names:
                has_answer = partial(lambda name: read_pid(server, name) is not None, name)
                server.wait(has_answer, f"{name} was answered")
            server.wait_until("/v2/health/ready")
