"""A Ray cluster of simulated nodes on this machine, in a process that is controlled by lines.

    with RayCluster(nodes=[4, 2]) as cluster:
        cluster.address

`python -m support.ray_cluster` is that process: the test's process imports no Ray. Call it in a
namespace (`support.network`). Every process of the cluster has `MARKER` in its environment; those
that are left at the end are killed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from support.network import find_obstacle

MARKER = "MLSERVER_TEST_RAY"
STORE_BYTES = 80 * 1024 * 1024
# Variables of all processes of a test's cluster.
COMMON_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Longer than the default of 30 s, for busy machines.
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_enable_open_telemetry": "false",
}


def find_reason_to_skip() -> str | None:
    """Why tests with a Ray cluster cannot run here; None if they can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'mlserver[ray]'"
    return find_obstacle()


class RayCluster:
    """A cluster.

    Args:
        nodes: CPUs of each node; the first one is the head.
        port: Port of the head node; None = any free one.
        variables: Further variables of its processes.
        prefix: A command that runs the cluster's command, such as `unshare --mount ...`.
    """

    def __init__(
        self,
        nodes: Sequence[float],
        port: int | None = None,
        variables: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self._nodes = nodes
        self._port = port
        self._variables = dict(variables or {})
        self._prefix = prefix
        self._token = uuid.uuid4().hex
        self.address = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes that use the cluster."""
        return {
            **COMMON_VARIABLES,
            MARKER: self._token,
            "RAY_AUTH_MODE": "disabled",
            # Shorter than the defaults of 30 and 60 s, for tests of lost nodes.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            **self._variables,
        }

    def __enter__(self) -> Self:
        # A short path: it contains Unix sockets.
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        self.process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "support.ray_cluster", self._folder],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.address = self._call("start", list(self._nodes), self._port)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def add_node(self, cpus: float) -> None:
        """Add a node; the last one added has the highest number."""
        self._call("add", cpus)

    def kill_node(self, number: int) -> None:
        """Kill all processes of a node at once, as if its machine lost power."""
        self._call("kill", number)

    def read_replicas(self) -> list[dict[str, Any]]:
        """Return the processes of the live replicas: `pid`, `node` (a number), `name`."""
        replicas: list[dict[str, Any]] = self._call("replicas")
        return replicas

    def list_processes(self) -> list[int]:
        """Return the ids of all processes with the marker, but this one's."""
        return find_processes(self._token)

    def find_actor(self, name: str) -> int | None:
        """Return the process of the live actor of that name; None = there is none."""
        pid: int | None = self._call("actor", name)
        return pid

    def _call(self, name: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"the cluster's process ended during '{name}'")

    def _end(self) -> None:
        """End all processes of the cluster, by their ids."""
        kill_processes(self.environment)
        self.process.wait(10)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def find_processes(token: str) -> list[int]:
    """Return the ids of all processes whose environment has a marker's value."""
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if f"{MARKER}={token}".encode() in environment:
            processes.append(int(entry.name))
    return processes


def kill_processes(variables: Mapping[str, str]) -> None:
    """End all processes that were started with the marker in `variables`."""
    for _ in range(50):
        processes = find_processes(variables[MARKER])
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not processes:
            return
        time.sleep(0.1)


class _Controller:
    """The cluster, in its own process."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self._folder = folder
        self._cluster = Cluster()
        self._nodes: list[Any] = []

    def start(self, nodes: list[float], port: int | None) -> str:
        # `add_node` writes the cluster's address into this folder, and does not create it.
        Path("/tmp/ray").mkdir(exist_ok=True)
        options = {} if port is None else {"gcs_server_port": port}
        self._add(nodes[0], temp_dir=self._folder, include_dashboard=False, **options)
        for cpus in nodes[1:]:
            self.add(cpus)
        self._cluster.wait_for_nodes()
        return str(self._cluster.address)

    def add(self, cpus: float) -> None:
        self._add(cpus)
        self._cluster.wait_for_nodes()

    def _add(self, cpus: float, **options: Any) -> None:
        node = self._cluster.add_node(
            num_cpus=cpus,
            object_store_memory=STORE_BYTES,
            node_ip_address="127.0.0.1",
            resources={f"node{len(self._nodes)}": 100},
            **options,
        )
        self._nodes.append(node)

    def kill(self, number: int) -> None:
        self._cluster.remove_node(self._nodes[number], allow_graceful=False)

    def _list_actors(self) -> list[dict[str, Any]]:
        import ray
        from ray._private.state import actors

        if not ray.is_initialized():
            ray.init(self._cluster.address, log_to_driver=False, configure_logging=False)
        return [actor for actor in actors().values() if actor["State"] == "ALIVE"]

    def actor(self, name: str) -> int | None:
        pids = [actor["Pid"] for actor in self._list_actors() if actor["Name"] == name]
        return pids[0] if pids else None

    def replicas(self) -> list[dict[str, Any]]:
        numbers = {node.node_id: number for number, node in enumerate(self._nodes)}
        return [
            {
                "pid": actor["Pid"],
                "node": numbers.get(actor["Address"]["NodeID"]),
                "name": actor["Name"],
            }
            for actor in self._list_actors()
            if actor["Name"].startswith("SERVE_REPLICA")
        ]


def main(folder: str) -> None:
    """Run the calls that arrive on standard input, one a line."""
    controller = _Controller(folder)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer = getattr(controller, name)(*arguments)
        sys.stdout.write(f"answer {json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
