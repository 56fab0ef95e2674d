"""Limits of sockets."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of open files")
RAISE = """
import resource, sys
from mlserver.sockets import raise_descriptor_limit

soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(raise_descriptor_limit(connections), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    "soft, hard, connections, allowed, raised",
    [
        (256, 4096, 1000, 1000, 1512),
        (2048, 4096, 1000, 1000, 2048),
        (256, 1024, 1000, 512, 1024),
        (64, 128, 1000, 2, 128),
    ],
)
def test_the_limit_of_open_files_limits_connections(
    soft: int, hard: int, connections: int, allowed: int, raised: int
) -> None:
    """In a process of its own: a hard limit cannot be raised again."""
    command = [sys.executable, "-c", RAISE, *map(str, (soft, hard, connections))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(allowed), str(raised)]
