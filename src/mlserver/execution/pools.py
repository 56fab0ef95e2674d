"""Runs models in worker processes, in one pool per environment and group: the default pool, and those that models ask for.

A pool that a model asks for (`environment_path`, `environment_tarball`, `inference_pool_gid`) starts with its first model
and ends with its last. A request that a dead worker had not answered is tried once more on another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from ..errors import Unavailable
from ..logging import get_logger
from ..settings import ModelSettings, Settings
from ..stage import Call
from ..types import InferenceRequest, InferenceResponse
from .environment import Environment, find_environment
from .executor import HTTPRequest, HTTPResponse, LoadedModel, ModelInfo
from .frames import Kind, pack_request, unpack_response
from .inline import InlineExecutor
from .pool import Pool
from .process import WorkerDied

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
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shared: dict[PoolKey, _Shared] = {}

    @property
    def pids(self) -> list[int]:
        return [pid for shared in self._shared.values() for pid in shared.pool.pids]

    def __contains__(self, key: PoolKey) -> bool:
        return key in self._shared

    async def lease(self, key: PoolKey, environment: Environment | None) -> Lease:
        """The started pool of a key, for one user. Raises `MLServerError` if it cannot be started."""
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared(Pool(self._settings.parallel_workers, self._settings, environment))
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
    """Loads models into worker processes; those with `parallel_workers` up to 0 into a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self._pools = Pools(settings)
        self._settings = settings
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
        lease = await self._lease(settings)
        try:
            info = await lease.pool.load(key, settings)
        except BaseException:
            await lease.release()
            raise
        return PoolModel(lease.pool, lease, key, info, limit)

    async def _lease(self, settings: ModelSettings) -> Lease:
        environment = await asyncio.to_thread(find_environment, settings, self._settings.environments_dir)
        group = settings.parameters.inference_pool_gid if settings.parameters else None
        key = (environment.key if environment else "", group or "")
        if environment is not None and key not in self._pools:
            await asyncio.to_thread(environment.check)
        return await self._pools.lease(key, environment)

    async def _load_here(self, settings: ModelSettings) -> LoadedModel:
        if self._inline is None:
            self._inline = InlineExecutor(self._settings.load_timeout)
            await self._inline.start()
        return await self._inline.load(settings)

    async def stop(self, grace: float) -> None:
        if self._inline is not None:
            await self._inline.stop(grace)
        await self._pools.stop(grace)

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return self._pools.pids


class PoolModel:
    """A model in the workers of a pool."""

    def __init__(self, pool: Pool, lease: Lease, key: str, info: ModelInfo, limit: float | None) -> None:
        self._pool = pool
        self._lease = lease
        self._key = key
        self._limit = limit
        self.info = info

    @property
    def available(self) -> bool:
        return self._pool.holds(self._key)

    @property
    def capacity(self) -> int:
        return max(1, self._pool.ready_workers)

    async def infer(self, request: InferenceRequest, call: Call) -> InferenceResponse:
        buffers: list[Any] = []
        head = [self._key, call.deadline, call.members, call.trace_parent, pack_request(request, buffers)]
        started = time.perf_counter_ns()
        for attempt in (1, 2):
            worker = await self._pool.worker_for(self._key)
            try:
                frame = await worker.call(Kind.INFER, head, buffers, self._limit)
                break
            except WorkerDied:
                if attempt == 2:
                    raise Unavailable("Two worker processes ended while they ran this request") from None
        model_ns, values = frame.head
        call.timings.model_ns = model_ns
        call.timings.transport_ns = time.perf_counter_ns() - started - model_ns
        return unpack_response(values, frame.buffers)

    async def stream(self, requests: AsyncIterator[InferenceRequest], call: Call) -> AsyncIterator[InferenceResponse]:
        worker = await self._pool.worker_for(self._key)
        frames = worker.stream(self._key, requests)
        try:
            async for frame in frames:
                yield unpack_response(frame.head, frame.buffers)
        except WorkerDied:
            raise Unavailable("The worker process ended in the middle of this stream") from None
        finally:
            await frames.aclose()  # type: ignore[attr-defined]

    async def route(self, request: HTTPRequest, call: Call) -> HTTPResponse:
        worker = await self._pool.worker_for(self._key)
        head = [self._key, request.method, request.path, request.query, request.headers]
        try:
            frame = await worker.call(Kind.ROUTE, head, [request.body] if request.body else (), self._limit)
        except WorkerDied:
            raise Unavailable("The worker process ended while it ran this request") from None
        status, headers = frame.head
        return HTTPResponse(status, [(name, value) for name, value in headers], bytes(frame.buffers[0]))

    async def unload(self) -> bool:
        try:
            return await self._pool.unload(self._key)
        finally:
            await self._lease.release()
