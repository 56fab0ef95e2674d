"""Faults in a Ray cluster of three simulated nodes: every caller is answered, none incorrectly.

`make ray-faults TIMES=10` repeats them.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from support import ray_load
from support.control_groups import control_group
from support.network import Network
from support.ports import free_ports
from support.ray_cluster import MARKER, RayCluster, find_reason_to_skip
from support.ray_load import (
    CALLERS,
    FILL_MEMORY,
    HEADROOM_MIB,
    HOLD_LOCK,
    find_pids,
    load,
    read_pid,
    write_affine,
)
from support.repository import tensor
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.ray(own_cluster=True), pytest.mark.timeout(400)]

ENDED = "the connection has ended"
LARGE = 1_500_000  # elements, 6 MB: more than the buffers of a connection
GROUP_LIMIT = str(256 * 1024 * 1024)


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


@pytest.fixture(scope="module")
def server(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the model `affine`, of two replicas, and three of one replica.

    They reserve so little that one node has room for them and for all those of the last test.
    """
    folder = tmp_path_factory.mktemp("faults")
    write_affine(folder, num_cpus=0.01)
    write_affine(folder, "other", num_replicas=1, num_cpus=0.01)
    write_affine(folder, "limited", headroom_mib=HEADROOM_MIB, num_replicas=1, num_cpus=0.01)
    settings = {"request_timeout": 60}
    write_affine(folder, "locked", settings=settings, num_replicas=1, num_cpus=0.01)
    with start(cluster, folder, "faults") as running:
        yield running


def start(
    cluster: RayCluster, folder: Path, name: str, ready: str | None = "/v2/health/ready"
) -> Server:
    variables = cluster.environment
    variables.pop(MARKER)  # the end of the cluster must not end the server
    return ray_load.start(variables, cluster.address, folder, name, ready)


def test_replicas_that_are_killed_while_they_compute(server: Server) -> None:
    dead: frozenset[int] = frozenset()
    with load(server, "replicas killed one after the other") as answers:
        for _ in range(3):
            victim = find_pids(server, 2, dead).pop()
            os.kill(victim, signal.SIGKILL)
            dead |= {victim}
        find_pids(server, 2, dead)
    assert answers.statuses[200] > 50


def test_both_replicas_at_once(server: Server) -> None:
    victims = find_pids(server, 2)
    with load(server, "all replicas of a model killed"):
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        find_pids(server, 2, frozenset(victims))


def test_a_replica_that_hangs(server: Server) -> None:
    """Its callers get 504 at their limit; the others are answered by the other replica."""
    stuck, other = find_pids(server, 2)
    with load(server, "a replica hangs, until its limit of 10 s") as answers:
        os.kill(stuck, signal.SIGSTOP)
        with ThreadPoolExecutor(4) as pool:  # what the replica would have to read first
            large = [tensor("x", [1.0] * LARGE)]
            sent = [pool.submit(server.infer, "affine", large) for _ in range(4)]
        assert {future.result().status_code for future in sent} <= {200, 503, 504}
        server.wait_for_line("does not react in a request past its time limit")
        for _ in range(20):
            assert read_pid(server) == other
        os.kill(stuck, signal.SIGKILL)
        find_pids(server, 2, frozenset({stuck}))
    assert answers.statuses[504] <= CALLERS


def test_a_model_that_holds_the_lock_of_the_interpreter(server: Server) -> None:
    """For longer than a silent host may: its connection stays, with large requests on it."""
    pid, ended = read_pid(server, "locked"), str(server.log).count(ENDED)
    infer = partial(server.post, "/v2/models/locked/infer", timeout=90)
    with ThreadPoolExecutor(3) as pool:
        held = pool.submit(infer, {"inputs": [tensor("x", [HOLD_LOCK])]})
        large = {"inputs": [tensor("x", [1.0] * LARGE)]}
        others = [pool.submit(infer, large) for _ in range(2)]
    assert held.result().status_code == 200, held.result().text
    for other in others:
        response = other.result()
        assert response.status_code == 200, response.text
        assert response.json()["outputs"][0]["data"] == [4.0]
    assert read_pid(server, "locked") == pid
    assert str(server.log).count(ENDED) == ended


def test_a_replica_that_exceeds_its_limit_of_memory(server: Server) -> None:
    """The allocation fails, and with it the request; the replica goes on."""
    pid = read_pid(server, "limited")
    with load(server, "an allocation fails in a replica", ("limited",)) as answers:
        for _ in range(3):
            response = server.infer("limited", [tensor("x", [FILL_MEMORY])])
            assert response.status_code == 500
            assert "MemoryError" in response.json()["error"]
    assert set(answers.statuses) == {200}
    assert read_pid(server, "limited") == pid


def test_a_request_that_fills_the_memory(server: Server) -> None:
    """The kernel kills the replicas that run it: one retry, then 503; both are replaced."""
    v1 = {"memory.limit_in_bytes": GROUP_LIMIT}
    v2 = {"memory.max": GROUP_LIMIT, "memory.oom.group": "0"}
    with ExitStack() as groups:
        victims = find_pids(server, 2)
        for victim in victims:  # one group each: the kernel kills any process of a group
            group = groups.enter_context(control_group("memory", v1, v2))
            (group / "cgroup.procs").write_text(str(victim))
        with (
            load(server, "memory filled: the model's other requests"),
            load(server, "memory filled: another model of the nodes", ("other",)) as others,
        ):
            response = server.infer("affine", [tensor("x", [FILL_MEMORY])])
            assert response.status_code == 503
            assert "Two worker processes ended while they ran" in response.json()["error"]
            find_pids(server, 2, frozenset(victims))
        assert set(others.statuses) == {200}


def test_a_cluster_that_comes_later_goes_away_and_returns(tmp_path: Path) -> None:
    """The server starts without it, is not ready without it, says why, and recovers.

    The model `asleep` needs no replica to be ready, but a cluster that can start one.
    """
    write_affine(tmp_path, num_replicas=1)
    write_affine(tmp_path, "asleep", autoscaling={"min": 0, "max": 1})
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
            is_ready = partial(server.get, "/v2/models/asleep/ready")
            server.wait(lambda: is_ready().status_code != 200, "the model is not ready", 60)
            response = server.infer("asleep", [tensor("x", [1.0])])
            assert response.status_code == 503
            assert "the Ray cluster does not answer" in response.json()["error"]
            response = server.post("/v2/repository/models/asleep/unload", timeout=120)
            assert response.status_code == 504
            assert "The Ray cluster does not answer" in response.json()["error"]
            assert server.infer("asleep", [tensor("x", [1.0])]).status_code == 404
            with RayCluster([2], port):
                server.wait_until("/v2/health/ready")
                assert read_pid(server) not in (None, first)
    network.close()


@pytest.mark.timeout(900)
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
        with load(server, "two of four nodes lost", names):
            cluster.kill_node(3)
            time.sleep(1)
            cluster.kill_node(2)
            for name in names:
                has_answer = partial(lambda name: read_pid(server, name) is not None, name)
                server.wait(has_answer, f"{name} was answered")
            server.wait_until("/v2/health/ready")
