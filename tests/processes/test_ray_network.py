"""Hosts of a Ray cluster that are cut off: packets vanish, and no end of a connection is seen.

The cluster has Ray's token authentication, which the other tests' clusters have not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver.parallel.ray.tcp import SILENCE_SECONDS
from support import hosts as hosts_module
from support import ray_cluster, ray_load
from support.hosts import Hosts
from support.ray_hosts import RayHosts
from support.ray_load import SLACK, find_pids, load, read_pid, write_affine
from support.repository import tensor
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.ray(own_cluster=True), pytest.mark.timeout(400)]

ENDED = "the connection has ended"
_ESTABLISHED = "01"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """The server's host, which has the head node too, and two others."""
    reason = ray_cluster.find_reason_to_skip() or hosts_module.find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    with Hosts(3) as connected, connected.entered(0):
        yield connected


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Iterator[RayHosts]:
    with RayHosts(hosts, [0, 1, 1]) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def server(cluster: RayHosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model of two replicas, one on each of the hosts 1 and 2."""
    folder = write_affine(tmp_path_factory.mktemp("cut"), max_replicas_per_node=1)
    with start(cluster, folder, "cut") as running:
        yield running


def start(
    cluster: RayHosts, folder: Path, name: str, ready: str | None = "/v2/health/ready"
) -> Server:
    return ray_load.start(cluster.environment, cluster.address, folder, name, ready)


def test_a_host_that_is_cut_off(server: Server, hosts: Hosts) -> None:
    """The other host's replica answers; after the cut, the replica is used again."""
    pids = {hosts.find_host(pid): pid for pid in find_pids(server, 2)}
    ended = count_ends(server)
    with load(server, "a host is cut off from the others, and comes back"):
        hosts.cut(1)
        began = time.monotonic()
        server.wait(lambda: count_ends(server) > ended, "the server had ended the connection")
        assert time.monotonic() - began < SILENCE_SECONDS + SLACK
        address, port = read_last_end(server)
        assert address == hosts.get_address(1)
        for _ in range(20):
            assert read_pid(server) == pids[2]
        assert server.get("/v2/health/ready").status_code == 200
        replica = pids[1]
        server.wait(lambda: not count_sessions(replica, port), "the replica had ended it as well")
        hosts.connect(1)
        server.wait(lambda: read_pid(server) == replica, "the replica was used again")


def test_all_hosts_are_cut_off(server: Server, hosts: Hosts) -> None:
    """The server is not ready, without a request that would show it, and recovers."""
    pids = find_pids(server, 2)
    for number in (1, 2):
        hosts.cut(number)
    began = time.monotonic()
    server.wait_until("/v2/health/ready", 400)
    assert time.monotonic() - began < SILENCE_SECONDS + SLACK
    response = server.infer("affine", [tensor("x", [1.0])])
    assert response.status_code == 503
    assert "No replica of the model is alive" in response.json()["error"]
    for number in (1, 2):
        hosts.connect(number)
    server.wait_until("/v2/health/ready")
    assert find_pids(server, 2) == pids


def test_a_server_without_the_token(cluster: RayHosts, tmp_path: Path) -> None:
    """It is not ready, and says what to set."""
    write_affine(tmp_path)
    variables = cluster.environment
    variables["RAY_AUTH_TOKEN"] = "0" * 64
    with ray_load.start(variables, cluster.address, tmp_path, "intruder", ready=None) as intruder:
        intruder.wait_for_line(f"no connection to the Ray cluster '{cluster.address}'")
        assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in intruder.log
        assert intruder.get("/v2/health/ready").status_code != 200


def count_ends(server: Server) -> int:
    return str(server.log).count(ENDED)


def read_last_end(server: Server) -> tuple[str, int]:
    """Address and port of the replica whose connection has ended last."""
    addresses = re.findall(rf"Replica ([\d.]+):(\d+) of .*{ENDED}", str(server.log))
    host, port = addresses[-1]
    return host, int(port)


def count_sessions(pid: int, port: int) -> int:
    """Count the established connections to a port of a process's host."""
    count = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        count += int(local.rpartition(":")[2], 16) == port and state == _ESTABLISHED
    return count
