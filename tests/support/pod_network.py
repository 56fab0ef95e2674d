"""Networks of several pods: each has an address of its own, and reaches the others.

    with PodSwitch() as switch:
        network = switch.add()
        with Pod(container, folder, network=network): ...

A pod's network is a namespace (`support.network`) with an interface whose other end is at a bridge,
in one more namespace. Nothing else is reachable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Self

from support.network import Network

GATEWAY = "10.0.0.1"
FIRST = 10  # the last number of the first pod's address


class PodNetwork:
    """The network of one pod, which its containers share.

    Attributes:
        address: The pod's IP address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._network = Network()

    @property
    def path(self) -> str:
        """The namespace as a path, which this process keeps open."""
        return f"/proc/{os.getpid()}/fd/{self._network.file}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the network until the end of the block."""
        with self._network.entered():
            yield

    def close(self) -> None:
        self._network.close()


class PodSwitch:
    """Connects networks of pods until the end of the block."""

    def __enter__(self) -> Self:
        self._network = Network()
        self._pods: list[PodNetwork] = []
        with self._network.entered():
            _run_ip("link", "add", "pods", "type", "bridge")
            _run_ip("address", "add", f"{GATEWAY}/24", "dev", "pods")
            _run_ip("link", "set", "pods", "up")
        return self

    def __exit__(self, *error: object) -> None:
        for pod in self._pods:
            pod.close()
        self._network.close()

    def add(self) -> PodNetwork:
        """Return the network of a new pod."""
        number = FIRST + len(self._pods)
        pod = PodNetwork(f"10.0.0.{number}")
        self._pods.append(pod)
        with self._network.entered():
            port = f"pod{number}"
            peer = ("peer", "name", "eth0", "netns", pod.path)
            _run_ip("link", "add", port, "type", "veth", *peer)
            _run_ip("link", "set", port, "master", "pods", "up")
        with pod.entered():
            _run_ip("address", "add", f"{pod.address}/24", "dev", "eth0")
            _run_ip("link", "set", "eth0", "up")
            # Programs find their own address by the route to any other one.
            _run_ip("route", "add", "default", "via", GATEWAY)
        return pod


def find_obstacle_to_switch() -> str | None:
    """Why this machine cannot connect networks; None if it can."""
    if shutil.which("ip") is None:
        return "ip is not installed (Debian: apt-get install iproute2)"
    network = Network()
    try:
        with network.entered():
            _run_ip("link", "add", "pods", "type", "bridge")
    except subprocess.CalledProcessError as error:
        return f"no bridge can be created: {error.stderr.strip()}"
    finally:
        network.close()
    return None


def _run_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
