"""A Ray cluster of hosts: one node on each, started by `ray start`, with token authentication.

    with Hosts(3) as hosts, RayHosts(hosts, cpus=[0, 1, 1]) as cluster:
        cluster.address

`support.ray_cluster` has nodes that share an address, and starts faster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from support.hosts import Hosts
from support.ray_cluster import COMMON_VARIABLES, MARKER, STORE_BYTES, kill_processes

PORT = 6379
START_LIMIT = 180.0


class RayHosts:
    """A cluster.

    Args:
        hosts: Where the nodes run.
        cpus: CPUs of the node on each host; host 0 has the head node.
    """

    def __init__(self, hosts: Hosts, cpus: Sequence[int]) -> None:
        self._hosts = hosts
        self._cpus = cpus
        self._marker = uuid.uuid4().hex
        self.address = f"{hosts.get_address(0)}:{PORT}"
        # As Ray's own: 64 hexadecimal digits.
        self.token = uuid.uuid4().hex * 2

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes that use the cluster."""
        return {**COMMON_VARIABLES, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def __enter__(self) -> Self:
        # A short path: it contains Unix sockets.
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        try:
            for number in range(len(self._cpus)):
                self._start(number)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self, number: int) -> None:
        if number == 0:
            options = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            options = [f"--address={self.address}"]
        options += [
            f"--node-ip-address={self._hosts.get_address(number)}",
            f"--num-cpus={self._cpus[number]}",
            f"--object-store-memory={STORE_BYTES}",
            f"--temp-dir={self._folder}/{number}",
        ]
        variables = {**os.environ, **self.environment, MARKER: self._marker}
        if number == 0:
            del variables["RAY_AUTH_MODE"]  # the head node's default, where there is a token
        # No pipe: the node's processes would keep it open.
        log = Path(self._folder) / f"start-{number}.log"
        with self._hosts.entered(number), log.open("w") as output:
            completed = subprocess.run(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=START_LIMIT,
                check=False,
            )
        assert completed.returncode == 0, log.read_text()

    def _end(self) -> None:
        """End all processes of the cluster, by their ids."""
        kill_processes({MARKER: self._marker})
        shutil.rmtree(self._folder, ignore_errors=True)
