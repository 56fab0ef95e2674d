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
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import IO

# Below the range of ports that the kernel gives to outgoing connections: such a connection could
# take a port between its choice and the server's start.
FIRST_PORT, LAST_PORT = 10_000, 32_000
BLOCK_SIZE = 500
_random = random.SystemRandom()  # a test may seed the common generator


def free_ports(count: int) -> list[int]:
    """Ports of this process's block on which no process listens.

    A port is given again only after all others of the block: a server listens on it some time
    after the choice, and until then it looks free to the next choice.
    """
    ports = _ports_in_turn()
    chosen: list[int] = []
    for _ in range(BLOCK_SIZE):
        port = next(ports)
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise RuntimeError(f"fewer than {count} of {BLOCK_SIZE} test ports are free")


@cache
def _ports_in_turn() -> Iterator[int]:
    """The ports of this process's block in a random order, again and again."""
    ports = list(_reserve_block()[0])
    _random.shuffle(ports)
    return cycle(ports)


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
