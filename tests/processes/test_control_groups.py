"""A server in a control group: a memory limit that a worker exceeds, and a quota of processors."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from support.chaos import wait_until_gone
from support.control_groups import control_group, server_in
from support.repository import tensor, write_model
from support.server import STOP_LIMIT, Server
from support.slow import slow

LIMIT_MIB = 400
ALLOCATED_MIB = 600
LIMIT = str(LIMIT_MIB * 1024 * 1024)
OF_WORKERS = {"memory.max": LIMIT, "memory.oom.group": "0"}
OF_GROUP = {"memory.max": LIMIT, "memory.oom.group": "1"}

GREEDY = """
import os

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Greedy(MLModel):
    async def load(self):
        self.allocate(self.settings.parameters.extra.get("mib", 0))
        return True

    def allocate(self, mib):
        self.held = [b"1" * (1024 * 1024) for _ in range(mib)]

    async def predict(self, payload):
        self.allocate(int(payload.inputs[0].data[0]))
        values = [os.getpid(), int(os.environ["OMP_NUM_THREADS"])]
        output = ResponseOutput(name="pid, threads", shape=[2], datatype="INT64", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def write_greedy(folder: Path, name: str, mib: int = 0) -> None:
    write_model(folder / name, "Greedy", source=GREEDY, parameters={"extra": {"mib": mib}})


def allocate(mib: int) -> list[dict[str, object]]:
    return [tensor("mib", [mib], "INT64")]


def read_process(server: Server) -> list[int]:
    """Process id of the model's worker, and the number of threads of its libraries."""
    answer = server.infer("greedy", allocate(0))
    assert answer.status_code == 200, answer.text
    values: list[int] = answer.json()["outputs"][0]["data"]
    return values


@pytest.mark.parametrize("http_workers", [1, slow(2)])
def test_a_worker_that_exceeds_the_memory_limit(tmp_path: Path, http_workers: int) -> None:
    """The kernel kills the worker alone; its request gets 503 with the reason, the next one 200."""
    write_greedy(tmp_path, "greedy")
    env = {"MLSERVER_HTTP_WORKERS": str(http_workers)}
    with (
        control_group("memory", {"memory.limit_in_bytes": LIMIT}, OF_WORKERS) as group,
        server_in(group)(tmp_path, workers=1, env=env) as server,
    ):
        before, _ = read_process(server)
        answer = server.infer("greedy", allocate(ALLOCATED_MIB))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "the memory limit was reached" in answer.json()["error"]
        server.wait_until("/v2/health/ready")
        after, _ = read_process(server)
        assert after != before
        assert f"probably out of memory: the control group's limit is {LIMIT_MIB} MiB" in server.log


def test_a_model_that_exceeds_the_memory_limit_in_its_load(tmp_path: Path) -> None:
    """Its error has the reason, and other models are served."""
    write_greedy(tmp_path, "greedy")
    write_greedy(tmp_path, "huge", mib=ALLOCATED_MIB)
    with (
        control_group("memory", {"memory.limit_in_bytes": LIMIT}, OF_WORKERS) as group,
        server_in(group)(tmp_path, workers=1, ready="/v2/models/greedy/ready") as server,
    ):
        server.wait_for_line("'huge' could not be loaded")
        answer = server.infer("huge", allocate(0))
        assert answer.status_code == 503
        assert "probably out of memory" in answer.json()["error"]
        assert server.infer("greedy", allocate(0)).status_code == 200


def test_a_group_that_is_killed_as_a_whole(tmp_path: Path) -> None:
    """Kubernetes sets `memory.oom.group` since 1.28: the container ends, and is restarted."""
    write_greedy(tmp_path, "greedy")
    with control_group("memory", {}, OF_GROUP) as group:
        server = server_in(group)(tmp_path, workers=1).__enter__()
        try:
            with pytest.raises(httpx.TransportError):
                server.infer("greedy", allocate(ALLOCATED_MIB))
            assert server.process.wait(STOP_LIMIT) == -signal.SIGKILL
            wait_until_gone(server.list_processes())
        finally:
            server.stop()


def test_threads_are_limited_by_the_quota(tmp_path: Path) -> None:
    """One processor of quota means one thread, on a machine with more processors."""
    write_greedy(tmp_path, "greedy")
    v1 = {"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "50000"}
    with (
        control_group("cpu", v1, {"cpu.max": "50000 50000"}) as group,
        server_in(group)(tmp_path, workers=1) as server,
    ):
        assert read_process(server)[1] == 1
