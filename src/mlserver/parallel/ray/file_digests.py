"""Digests of whole files; a large one is read once per process while it is unchanged.

SHA-256 at 1 GiB/s: the fastest of `hashlib` where the processor has instructions for it (BLAKE2b:
0.8). Samples of a large file would miss a layer that was trained again.
"""

from __future__ import annotations

import hashlib
import os
import time

# Bytes of a file from which its digest is kept: 8 ms to read it again.
CACHED_BYTES = 8 * 1024 * 1024
# Seconds since the last change of a file after which its digest is kept: two changes within one
# tick of a file system's clock leave equal times (2 s with FAT).
SETTLED_SECONDS = 5.0
MAX_ENTRIES = 10_000

# Path -> what changes with the content, and the digest.
_digests: dict[str, tuple[tuple[int, ...], bytes]] = {}


def compute_file_digest(path: str) -> bytes:
    """Return the digest of a file's content. Blocks, about 1 s per GiB.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as content:
        status = os.fstat(content.fileno())
        state = _get_state(status)
        known = _digests.get(path)
        if known is not None and known[0] == state:
            return known[1]
        digest = hashlib.file_digest(content, "sha256").digest()
        is_settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS
        if status.st_size < CACHED_BYTES or not is_settled:
            return digest
        if _get_state(os.fstat(content.fileno())) == state:
            if len(_digests) >= MAX_ENTRIES:
                _digests.clear()
            _digests[path] = (state, digest)
        return digest


def _get_state(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with a file's content; programs can set back all but `st_ctime_ns`."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return (status.st_dev, status.st_ino, status.st_size, *times)
