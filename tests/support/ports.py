"""Free TCP ports of 127.0.0.1, from a block that this process alone uses.

Without the blocks, two processes of tests can choose the same port before either server listens
on it.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

# Below the range of ports that the kernel gives to outgoing connections: such a connection could
# take a port between its choice and the server's start.
FIRST_PORT, LAST_PORT = 10_000, 32_000
BLOCK_SIZE = 500
_random = random.SystemRandom()  # a test may seed the common generator


def free_ports(count: int) -> list[int]:
    """Distinct ports of this process's block on which no process listens."""
    ports: set[int] = set()
    while len(ports) < count:
        port = _random.choice(_reserve_block()[0])
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)


@cache
def _reserve_block() -> tuple[range, IO[bytes]]:
    """A block of ports, and the open file whose lock reserves it until this process exits."""
    folder = Path(tempfile.gettempdir()) / f"mlserver-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    starts = list(range(FIRST_PORT, LAST_PORT, BLOCK_SIZE))
    _random.shuffle(starts)
    for start in starts:
        lock = (folder / str(start)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return range(start, start + BLOCK_SIZE), lock
    raise RuntimeError(f"all {len(starts)} blocks of test ports are in use (locks in {folder})")
