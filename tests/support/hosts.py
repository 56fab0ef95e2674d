"""Hosts of a test: network namespaces that a switch joins, and whose links can be cut.

    with Hosts(3) as hosts, hosts.entered(0):
        hosts.cut(1)      # packets from and to host 1 vanish: no end, no reset
        hosts.connect(1)

The switch is on host 0: a cut separates a host from all others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from typing import Self

from support.network import Network, find_obstacle

_FOLDERS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def find_reason_to_skip() -> str | None:
    """Why this process cannot create hosts; None if it can."""
    if shutil.which("ip", path=_FOLDERS) is None:
        return "the command `ip` is not installed: apt-get install iproute2"
    return find_obstacle()


class Hosts:
    """Hosts 0 to `count` - 1, with the addresses 10.213.0.1 and following."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Self:
        self._networks = [Network() for _ in range(self._count)]
        with self.entered(0):
            _run_ip("link add switch type bridge")
            _run_ip(f"addr add {self.get_address(0)}/24 dev switch")
            _run_ip("link set switch up")
            for number in range(1, self._count):
                peer = f"peer name link0 netns {self._networks[number].path}"
                _run_ip(f"link add port{number} type veth {peer}")
                _run_ip(f"link set port{number} master switch up")
        for number in range(1, self._count):
            with self.entered(number):
                _run_ip(f"addr add {self.get_address(number)}/24 dev link0")
                _run_ip("link set link0 up")
        return self

    def __exit__(self, *_: object) -> None:
        for network in self._networks:
            network.close()

    @staticmethod
    def get_address(number: int) -> str:
        return f"10.213.0.{number + 1}"

    def entered(self, number: int) -> AbstractContextManager[None]:
        """Move the calling thread to a host until the end of the block."""
        return self._networks[number].entered()

    def find_host(self, pid: int) -> int:
        """Return the host that a process runs on."""
        namespace = os.stat(f"/proc/{pid}/ns/net").st_ino
        return [network.number for network in self._networks].index(namespace)

    def cut(self, number: int) -> None:
        """Drop all packets from and to a host."""
        with self.entered(0):
            _run_ip(f"link set port{number} down")

    def connect(self, number: int) -> None:
        """End a cut."""
        with self.entered(0):
            _run_ip(f"link set port{number} up")


def _run_ip(arguments: str) -> None:
    """Run `ip ARGUMENTS` on the host of the calling thread."""
    command = [str(shutil.which("ip", path=_FOLDERS)), *arguments.split()]
    subprocess.run(command, check=True, timeout=30)
