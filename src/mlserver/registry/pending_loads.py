"""Loads that wait for their turn or run, until an unload of their model cancels them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ..errors import MLServerError


class LoadCancelled(MLServerError):
    """The model was unloaded before its load ended."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Model {name}: the load was cancelled, because the model was unloaded meanwhile", 409
        )


class PendingLoad:
    """One load of a model version.

    Attributes:
        is_cancelled: Whether an unload has cancelled it.
    """

    def __init__(self, name: str, version: str | None) -> None:
        self.name, self.version = name, version
        self.is_cancelled = False
        self._timeout: asyncio.Timeout | None = None

    def cancel(self) -> None:
        """End the block of `run`, or let none begin."""
        if self._timeout is not None and not self.is_cancelled:
            self._timeout.reschedule(0.0)  # in the past: now
        self.is_cancelled = True

    def check(self) -> None:
        """Raise `LoadCancelled` if it is cancelled."""
        if self.is_cancelled:
            raise LoadCancelled(self.name)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the block until `cancel`. Raises `LoadCancelled`: that has ended it."""
        self.check()
        try:
            async with asyncio.timeout(None) as self._timeout:
                yield
        except TimeoutError:
            self.check()
            raise
        finally:
            self._timeout = None


class PendingLoads:
    """The loads of a registry."""

    def __init__(self) -> None:
        self._loads: set[PendingLoad] = set()

    @contextmanager
    def add(self, name: str, version: str | None) -> Iterator[PendingLoad]:
        """Register a load for the time of the block."""
        load = PendingLoad(name, version)
        self._loads.add(load)
        try:
            yield load
        finally:
            self._loads.discard(load)

    def cancel(self, name: str, version: str | None) -> None:
        """Cancel the loads of one version."""
        for load in self._loads:
            if (load.name, load.version) == (name, version):
                load.cancel()

    def cancel_all(self, name: str) -> None:
        """Cancel the loads of all versions of a model."""
        for load in self._loads:
            if load.name == name:
                load.cancel()
