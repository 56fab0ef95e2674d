"""Finds, builds and unpacks the environments of models in threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..settings import ModelSettings
from . import builder
from .build_limit import BuildLimit
from .environment import Environment, find_environment

T = TypeVar("T")

# Environments that are built or unpacked at a time; further ones wait.
MAX_BUILDS = 6


class EnvironmentFinder:
    """Finds environments. A build takes minutes, and asyncio's default threads serve requests.

    Args:
        folder: The setting `environments_dir`.
        timeout: Seconds to find, build or unpack one environment; None = no limit.
    """

    def __init__(self, folder: str, timeout: float | None) -> None:
        self._folder = folder
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(MAX_BUILDS, "environments")
        self._limits: set[BuildLimit] = set()
        self._is_stopped = False

    async def find(self, settings: ModelSettings) -> Environment | None:
        """Return the environment in a model's settings, None for the server's own.

        Raises:
            MLServerError: it does not exist or cannot be built, in time or at all.
        """
        if not has_environment(settings):
            return None

        def find(limit: BuildLimit) -> Environment | None:
            return find_environment(settings, self._folder, limit)

        return await self._run(find)

    async def check(self, environment: Environment) -> None:
        """Raise `EnvironmentNotFound`, with the reason, if a worker cannot run in it."""
        await self._run(environment.check)

    async def _run(self, function: Callable[[BuildLimit], T]) -> T:
        """Run a function in a thread, with a limit of its own; a cancelled caller ends it."""
        limits: list[BuildLimit] = []
        is_cancelled = False

        def run_limited() -> T:
            limit = BuildLimit(self._timeout)
            self._limits.add(limit)
            limits.append(limit)
            try:
                # After `add`: `stop` sets it before it reads the limits.
                if self._is_stopped or is_cancelled:
                    limit.stop()
                limit.check()
                return function(limit)
            finally:
                self._limits.discard(limit)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run_limited)
        except asyncio.CancelledError:
            is_cancelled = True
            for limit in limits:
                limit.stop()
            raise

    def stop(self) -> None:
        """End all searches, those that wait included, when the server stops."""
        self._is_stopped = True
        for limit in list(self._limits):
            limit.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def has_environment(settings: ModelSettings) -> bool:
    """Whether a model's settings have a Python environment other than the server's own."""
    parameters = settings.parameters
    if parameters is None:
        return False
    has_own = parameters.environment_tarball or parameters.environment_path
    return bool(has_own) or parameters.extra.get("env_manager", builder.LOCAL) != builder.LOCAL
