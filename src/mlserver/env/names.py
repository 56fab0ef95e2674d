"""Environments of models under the names of MLServer 1.x; they live in `execution.environment`."""

from __future__ import annotations

import asyncio

from . import environment
from .environment import Environment

__all__ = ["Environment", "compute_hash_of_file", "compute_hash_of_string"]


async def compute_hash_of_file(tarball_path: str) -> str:
    """The SHA-256 of a file."""
    return await asyncio.to_thread(environment.compute_hash_of_file, tarball_path)


async def compute_hash_of_string(string: str) -> str:
    """The SHA-256 of a text."""
    return environment.compute_hash_of_string(string)
