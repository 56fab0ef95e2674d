"""Replicas that Ray adds under load and removes without it: no request is lost or incorrect."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support import ray_load
from support.ray_cluster import MARKER, RayCluster
from support.ray_load import SLACK, load, read_pid, write_affine
from support.repository import tensor
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

NAME = "scaling"
LIMIT = 120.0  # seconds, `request_timeout`: a replica may start slowly on a busy machine
SHORT_LIMIT = 3.0  # that of the model `slow`
DELAYS = {"upscale_delay": 0, "downscale_delay": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with one to three replicas, and with none while no request arrives."""
    repository = tmp_path_factory.mktemp("scaling")
    # A target that the load exceeds on a busy machine too.
    busy = {"min": 1, "max": 3, "target_busy": 0.3, **DELAYS}
    one_call = {"max_concurrency": 1}
    write_affine(repository, "busy", settings=one_call, num_cpus=0.1, autoscaling=busy)
    asleep = {"min": 0, "max": 1, **DELAYS}
    write_affine(repository, "asleep", num_cpus=0.1, autoscaling=asleep)
    short = {"request_timeout": SHORT_LIMIT}
    write_affine(repository, "slow", settings=short, num_cpus=0.1, autoscaling=asleep)
    return repository


@pytest.fixture(scope="module")
def server(ray_cluster: RayCluster, folder: Path) -> Iterator[Server]:
    with start(ray_cluster, folder) as running:
        running.client.timeout = LIMIT + SLACK
        yield running


def start(cluster: RayCluster, folder: Path) -> Server:
    variables = cluster.environment
    variables.pop(MARKER)
    return ray_load.start(variables, cluster.address, folder, NAME, limit=LIMIT)


def wait_for_replicas(server: Server, cluster: RayCluster, model: str, count: int) -> None:
    """Wait until a model has this number of replicas."""
    prefix = f"mlserver/{NAME}/{model}/"

    def count_replicas() -> int:
        return sum(prefix in replica["name"] for replica in cluster.read_replicas())

    server.wait(lambda: count_replicas() == count, f"{model} had {count} replicas", 120)


def test_replicas_follow_the_load(server: Server, ray_cluster: RayCluster) -> None:
    with load(server, "replicas are added, 1 to 3", ("busy",)) as answers:
        wait_for_replicas(server, ray_cluster, "busy", 3)
        server.wait(lambda: find_pid_count(server, "busy") == 3, "3 replicas answered")
    assert set(answers.statuses) == {200}
    with load(server, "replicas are removed, 3 to 1", ("busy",), pause=4.0) as answers:
        wait_for_replicas(server, ray_cluster, "busy", 1)
    assert set(answers.statuses) == {200}


def test_a_model_without_replicas_wakes(server: Server, ray_cluster: RayCluster) -> None:
    """As often as it has fallen asleep. Readiness does not need a replica."""
    pids = []
    for _ in range(2):
        wait_for_replicas(server, ray_cluster, "asleep", 0)
        assert server.get("/v2/health/ready").status_code == 200
        assert server.get("/v2/models/asleep/ready").status_code == 200
        fault = "the first requests without a replica"
        with load(server, fault, ("asleep",), limit=LIMIT) as answers:
            pids.append(read_pid(server, "asleep"))
        assert set(answers.statuses) == {200}
    assert None not in pids
    assert len(set(pids)) == 2


def test_a_replica_that_starts_too_late(
    server: Server, ray_cluster: RayCluster, folder: Path
) -> None:
    """The request that waits for it gets 504 at its limit; a later one is answered."""
    wait_for_replicas(server, ray_cluster, "slow", 0)
    marker = folder / "slow" / "block-load"
    marker.touch()
    try:
        began = time.monotonic()
        response = server.infer("slow", [tensor("x", [1.0])])
        assert response.status_code == 504
        assert time.monotonic() - began < SHORT_LIMIT + SLACK
        assert server.get("/v2/health/ready").status_code == 200
    finally:
        marker.unlink()
    server.wait(lambda: read_pid(server, "slow") is not None, "the replica answered")


def test_a_sleeping_model_after_a_restart_of_the_directory(
    server: Server, ray_cluster: RayCluster, folder: Path
) -> None:
    """A further server starts, though no replica and no directory describes the model."""
    wait_for_replicas(server, ray_cluster, "asleep", 0)
    directory = ray_cluster.find_actor(f"mlserver/{NAME}/directory")
    assert directory is not None
    os.kill(directory, signal.SIGKILL)
    has_restarted = partial(_has_another_directory, ray_cluster, directory)
    server.wait(has_restarted, "the directory had restarted", 60)
    with start(ray_cluster, folder) as second:
        assert read_pid(second, "asleep") is not None


def _has_another_directory(cluster: RayCluster, before: int) -> bool:
    return cluster.find_actor(f"mlserver/{NAME}/directory") not in (None, before)


def find_pid_count(server: Server, model: str) -> int:
    return len({read_pid(server, model) for _ in range(30)} - {None})
