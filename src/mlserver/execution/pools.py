"""Runs models in worker processes, in one pool per environment and group: the default pool, and those that models ask for.

A pool that a model asks for (`environment_path`, `environment_tarball`, `inference_pool_gid`) starts with its first model
and ends with its last. A request that a dead worker had not answered is tried once more on another.
"""

from __future__ import annotations

import asyncio

from ..errors import MLServerError
from ..logging import get_logger
from ..metrics.shared import SharedFolder
from ..settings import ModelSettings, Settings
from . import building
from .crew import CrewModel
from .environment import Environment, find_environment
from .executor import Audience, LoadedModel, ModelInfo
from .inline import InlineExecutor
from .pool import Pool, pinned
from .process import ChildProcess as WorkerProcess

logger = get_logger()

PoolKey = tuple[str, str]
DEFAULT: PoolKey = ("", "")


class _Shared:
    """A pool, its start, and how many models (or loads under way) need it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.users = 0
        self.starting: asyncio.Task[None] = asyncio.ensure_future(pool.start())


class Pools:
    """Pools by environment and group. Each one that is not needed any more is stopped.

    Args:
        settings: The server's.
        audience: Who else asks the workers.
    """

    def __init__(self, settings: Settings, audience: Audience | None = None) -> None:
        self._settings = settings
        self._audience = audience
        self._shared: dict[PoolKey, _Shared] = {}
        self._metrics: SharedFolder | None = None

    @property
    def pids(self) -> list[int]:
        return [pid for shared in self._shared.values() for pid in shared.pool.pids]

    @property
    def started(self) -> list[Pool]:
        return [shared.pool for shared in self._shared.values()]

    def __contains__(self, key: PoolKey) -> bool:
        return key in self._shared

    async def lease(self, key: PoolKey, environment: Environment | None) -> Lease:
        """The started pool of a key, for one user. Raises `MLServerError` if it cannot be started."""
        shared = self._shared.get(key)
        if shared is None:
            if self._metrics is None:
                self._metrics = SharedFolder(self._settings)
            workers, variables = self._settings.parallel_workers, self._metrics.variables()
            pool = Pool(workers, self._settings, environment, self._audience, variables)
            shared = self._shared[key] = _Shared(pool)
        shared.users += 1
        lease = Lease(self, key, shared)
        try:
            # Others may wait for the same start: one that leaves does not end it.
            await asyncio.shield(shared.starting)
        except BaseException:
            await lease.release()
            raise
        return lease

    async def give_back(self, key: PoolKey, shared: _Shared) -> None:
        shared.users -= 1
        if not shared.users:
            del self._shared[key]
            await self._end(shared, self._settings.parallel_workers_timeout)

    async def stop(self, grace: float) -> None:
        """End all pools, used or not."""
        await asyncio.gather(*(self._end(shared, grace) for shared in self._shared.values()))
        if self._metrics is not None:
            self._metrics.close()

    @staticmethod
    async def _end(shared: _Shared, grace: float) -> None:
        shared.starting.cancel()
        await asyncio.gather(shared.starting, return_exceptions=True)
        await shared.pool.stop(grace)


class Lease:
    """One user's hold on a pool."""

    def __init__(self, pools: Pools, key: PoolKey, shared: _Shared) -> None:
        self._pools = pools
        self._key = key
        self._shared: _Shared | None = shared
        self.pool = shared.pool

    async def release(self) -> None:
        """Let go; the last one ends the pool. A second time: nothing happens."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await self._pools.give_back(self._key, shared)


class PoolExecutor:
    """Loads models into worker processes; those with `parallel_workers` up to 0 into a thread of this process.

    Args:
        audience: Who else asks the workers; then no model can run in a thread of this process.
    """

    def __init__(self, settings: Settings, audience: Audience | None = None) -> None:
        self._pools = Pools(settings, audience)
        self._settings = settings
        self._audience = audience
        self._keys = 0
        self._inline: InlineExecutor | None = None
        self._default: Lease | None = None

    async def start(self) -> None:
        self._default = await self._pools.lease(DEFAULT, None)

    async def load(self, settings: ModelSettings) -> LoadedModel:
        if settings.parallel_workers is not None and settings.parallel_workers <= 0:
            return await self._load_here(settings)
        self._keys += 1
        key = f"{settings.name}#{self._keys}"
        limit = settings.request_timeout or self._settings.request_timeout
        environment = await asyncio.to_thread(find_environment, settings, self._settings.environments_dir)
        lease = await self._lease(settings, environment)
        try:
            # An alias may move while the environment is built, which is right for the version that it named before.
            info = await lease.pool.load(key, pinned(settings, environment.source if environment else None))
        except BaseException:
            await lease.release()
            raise
        return PoolModel(lease, key, info, limit, self._audience)

    async def _lease(self, settings: ModelSettings, environment: Environment | None) -> Lease:
        group = settings.parameters.inference_pool_gid if settings.parameters else None
        key = (environment.key if environment else "", group or "")
        if environment is not None and key not in self._pools:
            await asyncio.to_thread(environment.check)
        return await self._pools.lease(key, environment)

    async def _load_here(self, settings: ModelSettings) -> LoadedModel:
        if self._audience is not None:
            text = "runs in the server's own process ('parallel_workers' of 0), which further front ends cannot ask"
            raise MLServerError(f"Model {settings.name} {text}: set 'http_workers' to 1, or leave it out", 500)
        if self._inline is None:
            self._inline = InlineExecutor(self._settings.load_timeout)
            await self._inline.start()
        return await self._inline.load(settings)

    async def stop(self, grace: float) -> None:
        building.stop()
        if self._inline is not None:
            await self._inline.stop(grace)
        await self._pools.stop(grace)

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return self._pools.pids

    def suspect(self, number: int) -> None:
        """Somebody else found this worker not to answer in time: it is ended if it is stuck."""
        for pool in self._pools.started:
            pool.suspect(number)

    @property
    def workers(self) -> list[tuple[int, WorkerProcess]]:
        """The workers that are ready, each with its pool's number."""
        return [(pool.number, worker) for pool in self._pools.started for worker in pool.workers]


class PoolModel(CrewModel):
    """A model in the workers of a pool, and its hold on that."""

    def __init__(self, lease: Lease, key: str, info: ModelInfo, limit: float | None, audience: Audience | None) -> None:
        super().__init__(lease.pool, key, info, limit)
        self.pool = lease.pool
        self._lease = lease
        self._audience = audience

    async def unload(self) -> bool:
        try:
            if self._audience is not None:
                await self._audience.leave_model(self.key)
            return await self.pool.unload(self.key)
        finally:
            await self._lease.release()
