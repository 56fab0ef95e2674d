"""Finds, builds and unpacks the environments of models in threads of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ..settings import ModelSettings
from . import builder
from .build_limit import BuildLimit
from .environment import Environment, find_environment

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
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._find, settings)

    def _find(self, settings: ModelSettings) -> Environment | None:
        limit = BuildLimit(self._timeout)
        self._limits.add(limit)
        try:
            if self._is_stopped:  # after `add`: `stop` sets it before it reads the limits
                limit.stop()
            limit.check()
            return find_environment(settings, self._folder, limit)
        finally:
            self._limits.discard(limit)

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
