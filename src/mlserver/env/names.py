"""Functions of `environment` with the asynchronous signatures of MLServer 1.x."""

from __future__ import annotations

import asyncio

from . import environment
from .environment import Environment

__all__ = ["Environment", "compute_hash_of_file", "compute_hash_of_string"]


async def compute_hash_of_file(tarball_path: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return await asyncio.to_thread(environment.compute_hash_of_file, tarball_path)


async def compute_hash_of_string(string: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return environment.compute_hash_of_string(string)
