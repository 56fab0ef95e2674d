"""Runs models in worker processes, in pools: the default pool, those that models ask for, and those of models with code.

A pool that a model asks for (`environment_path`, `environment_tarball`, `inference_pool_gid`) starts with its first model
and ends with its last. Each load of a model that ships code has a pool of its own, see `isolation`; in a group
(`inference_pool_gid`) the models whose code is equal share one. A request that a dead worker had not answered is tried
once more on another.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from .. import isolation
from ..env import builder
from ..env.environment import Environment, find_environment
from ..errors import MLServerError
from ..logging import get_logger
from ..metrics.shared import SharedFolder
from ..settings import ModelSettings, Settings
from .child_process import ChildProcess as WorkerProcess
from .executor import LoadedModel, ModelInfo, WorkerListener
from .in_process import InProcessExecutor
from .remote_model import RemoteModel
from .worker_pool import WorkerPool, with_resolved_uri

logger = get_logger()

# Loads of a model whose code changes while it is loaded; each goes to the pool for the code that the last one met.
CODE_ATTEMPTS = 3


class PoolKey(NamedTuple):
    """What a pool is for.

    Attributes:
        environment: Key of the Python environment; "" = the server's own.
        group: The models' `inference_pool_gid`; "" = none.
        code: Whose code runs in it: "" = that of models that ship none, a digest = equal code of a group's models, else
            the key of one loaded model.
    """

    environment: str = ""
    group: str = ""
    code: str = ""


DEFAULT = PoolKey()


class _Code(NamedTuple):
    """The code that a model ships.

    Attributes:
        names: For the log.
        digest: Equal for equal code.
    """

    names: str
    digest: str


class RefCountedPool:
    """A pool, its start, and how many models (or loads under way) need it."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.users = 0
        self.starting: asyncio.Task[None] = asyncio.ensure_future(pool.start())


class PoolManager:
    """Pools by environment and group. Each one that is not needed any more is stopped.

    Args:
        settings: The server's.
        audience: Who else asks the workers.
    """

    def __init__(self, settings: Settings, listener: WorkerListener | None = None) -> None:
        self._settings = settings
        self._listener = listener
        self._shared: dict[PoolKey, RefCountedPool] = {}
        self._metrics: SharedFolder | None = None

    @property
    def pids(self) -> list[int]:
        return [pid for shared in self._shared.values() for pid in shared.pool.pids]

    @property
    def started(self) -> list[WorkerPool]:
        return [shared.pool for shared in self._shared.values()]

    def __contains__(self, key: PoolKey) -> bool:
        return key in self._shared

    async def acquire(
        self, key: PoolKey, environment: Environment | None, may_load: str = isolation.NO_CODE
    ) -> PoolReference:
        """The started pool of a key, for one user. Raises `MLServerError` if it cannot be started."""
        shared = self._shared.get(key)
        if shared is None:
            if self._metrics is None:
                self._metrics = SharedFolder(self._settings)
            workers, variables = self._settings.parallel_workers, self._metrics.variables()
            pool = WorkerPool(
                workers, self._settings, environment, self._listener, variables, may_load
            )
            shared = self._shared[key] = RefCountedPool(pool)
        shared.users += 1
        acquire = PoolReference(self, key, shared)
        try:
            # Others may wait for the same start: one that leaves does not end it.
            await asyncio.shield(shared.starting)
        except BaseException:
            await acquire.release()
            raise
        return acquire

    async def release(self, key: PoolKey, shared: RefCountedPool) -> None:
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
    async def _end(shared: RefCountedPool, grace: float) -> None:
        shared.starting.cancel()
        await asyncio.gather(shared.starting, return_exceptions=True)
        await shared.pool.stop(grace)


class PoolReference:
    """One user's hold on a pool."""

    def __init__(self, pools: PoolManager, key: PoolKey, shared: RefCountedPool) -> None:
        self._pools = pools
        self._key = key
        self._shared: RefCountedPool | None = shared
        self.pool = shared.pool

    async def release(self) -> None:
        """Let go; the last one ends the pool. A second time: nothing happens."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await self._pools.release(self._key, shared)


class PoolExecutor:
    """Loads models into worker processes; those with `parallel_workers` up to 0 into a thread of this process.

    Args:
        audience: Who else asks the workers; then no model can run in a thread of this process.
    """

    def __init__(self, settings: Settings, listener: WorkerListener | None = None) -> None:
        self._pools = PoolManager(settings, listener)
        self._settings = settings
        self._listener = listener
        self._keys = 0
        self._inline: InProcessExecutor | None = None
        self._default: PoolReference | None = None

    async def start(self) -> None:
        self._default = await self._pools.acquire(DEFAULT, None)

    async def load(self, settings: ModelSettings) -> LoadedModel:
        if settings.parallel_workers is not None and settings.parallel_workers <= 0:
            return await self._load_here(settings)
        environment = await asyncio.to_thread(
            find_environment, settings, self._settings.environments_dir
        )
        # An alias may move while the environment is built, which is right for the version that it named before.
        settings = with_resolved_uri(settings, environment.source if environment else None)
        code = await asyncio.to_thread(_shipped_code, settings)
        for _ in range(CODE_ATTEMPTS):
            try:
                return await self._load_into_pool(settings, environment, code)
            except MLServerError as error:
                needed = (error.details or {}).get(isolation.NeedsOwnProcess.KEY)
                if needed is None:
                    raise
                code = _Code(**needed["code"]) if needed["code"] else None
                settings = with_resolved_uri(settings, needed["source"])
        raise MLServerError(f"Model {settings.name}: its code changes while it is loaded", 500)

    async def _load_into_pool(
        self, settings: ModelSettings, environment: Environment | None, code: _Code | None
    ) -> LoadedModel:
        self._keys += 1
        key = f"{settings.name}#{self._keys}"
        limit = settings.request_timeout or self._settings.request_timeout
        acquire = await self._pool_reference(settings, environment, code, key)
        try:
            info = await acquire.pool.load(key, settings)
        except BaseException:
            await acquire.release()
            raise
        return PooledModel(acquire, key, info, limit, self._listener)

    async def _pool_reference(
        self,
        settings: ModelSettings,
        environment: Environment | None,
        code: _Code | None,
        model_key: str,
    ) -> PoolReference:
        group = (settings.parameters.inference_pool_gid if settings.parameters else None) or ""
        place = environment.key if environment else ""
        if code is None:
            key, may_load = PoolKey(place, group), isolation.NO_CODE
        elif group:
            key, may_load = PoolKey(place, group, code.digest), code.digest
        else:
            key, may_load = PoolKey(place, group, model_key), isolation.ANY_CODE
        if code is not None:
            whose = (
                f"the worker pool of group '{group}' for equal code"
                if group
                else "a worker pool of its own"
            )
            logger.info(
                "Model '%s': runs in %s, since it ships code (%s)", settings.name, whose, code.names
            )
        if environment is not None and key not in self._pools:
            await asyncio.to_thread(environment.check)
        return await self._pools.acquire(key, environment, may_load)

    async def _load_here(self, settings: ModelSettings) -> LoadedModel:
        if self._listener is not None:
            text = "runs in the server's own process ('parallel_workers' of 0), which further front ends cannot ask"
            raise MLServerError(
                f"Model {settings.name} {text}: set 'http_workers' to 1, or leave it out", 500
            )
        if self._inline is None:
            self._inline = InProcessExecutor(self._settings.load_timeout)
            await self._inline.start()
        return await self._inline.load(settings)

    async def stop(self, grace: float) -> None:
        builder.stop()
        if self._inline is not None:
            await self._inline.stop(grace)
        await self._pools.stop(grace)

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return self._pools.pids

    def report_stuck(self, number: int) -> None:
        """Somebody else found this worker not to answer in time: it is ended if it is stuck."""
        for pool in self._pools.started:
            pool.report_stuck(number)

    @property
    def workers(self) -> list[tuple[int, WorkerProcess]]:
        """The workers that are ready, each with its pool's number."""
        return [(pool.number, worker) for pool in self._pools.started for worker in pool.workers]


class PooledModel(RemoteModel):
    """A model in the workers of a pool, and its hold on that."""

    def __init__(
        self,
        acquire: PoolReference,
        key: str,
        info: ModelInfo,
        limit: float | None,
        listener: WorkerListener | None,
    ) -> None:
        super().__init__(acquire.pool, key, info, limit)
        self.pool = acquire.pool
        self._pool_reference = acquire
        self._listener = listener

    async def unload(self) -> bool:
        try:
            if self._listener is not None:
                await self._listener.wait_model_released(self.key)
            return await self.pool.unload(self.key)
        finally:
            await self._pool_reference.release()


def _shipped_code(settings: ModelSettings) -> _Code | None:
    """The code that an MLflow model on this machine ships, by its files; None = none, or the worker finds out. Blocks."""
    package = builder.RUNTIME
    if (
        not settings.implementation_.startswith((f"{package}.", f"{package}:"))
        or find_spec(package) is None
    ):
        return None
    try:
        # Of all modules of the runtime only this one and the wire format may be imported here: neither needs MLflow.
        module = import_module(f"{package}.loading.shipped_code")
    except ImportError:
        return None  # the load fails for the same reason, and says it
    code = module.of_settings(settings)
    return None if code is None else _Code(str(code), code.digest)
