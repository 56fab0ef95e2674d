"""Executor of models in worker processes: one pool per environment, group and shipped code.

A pool of an environment or a group (`environment_path`, `environment_tarball`,
`inference_pool_gid`) starts with its first model and ends with its last. A model that ships code
has a pool of its own, see `isolation`; in a group, models with equal code share one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .. import isolation
from ..env.environment import Environment
from ..env.environment_finder import EnvironmentFinder
from ..errors import MLServerError
from ..folder_modules import FolderModules, ImportedModules
from ..logging import get_logger
from ..metrics.shared import SharedFolder
from ..runtime_hooks import find_hooks
from ..settings import ModelSettings, Settings
from .allowed_code import NO_CODE, AllowedCode
from .child_process import ChildProcess as WorkerProcess
from .death_count import ProcessEvents
from .executor import LoadedModel, ModelInfo, WorkerListener
from .in_process import InProcessExecutor
from .model_source import with_resolved_uri
from .pool_key import DEFAULT, PoolKey
from .processes.fork_refusals import ForkRefusals
from .processes.template_process import TemplateProcess
from .processes.templates import Templates
from .remote_model import RemoteModel
from .worker_pool import WorkerPool

logger = get_logger()

# Loads of a model whose code changes during the load; each uses the pool for the code that the last
# one found.
CODE_ATTEMPTS = 3


class _Code(NamedTuple):
    """The code that a model ships.

    Attributes:
        names: File names, for the log.
        digest: Equal for equal code.
        modules: Top-level names of its modules.
    """

    names: str
    digest: str
    modules: Sequence[str]


class RefCountedPool:
    """A pool, its start, and the number of models and loads that use it."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.users = 0
        self.starting: asyncio.Task[None] = asyncio.ensure_future(pool.start())


class PoolManager:
    """Pools by key; a pool without users is stopped.

    Args:
        settings: The server's settings.
        listener: Notified of changes, for other processes that call the workers.
        template: A template process of the server's own environment that is started already.
    """

    def __init__(
        self,
        settings: Settings,
        listener: WorkerListener | None = None,
        template: TemplateProcess | None = None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._templates = Templates(settings, template)
        self._refusals = ForkRefusals()
        self._entries: dict[PoolKey, RefCountedPool] = {}
        self._metrics: SharedFolder | None = None
        self._past_events = ProcessEvents()

    @property
    def pools(self) -> list[WorkerPool]:
        return [entry.pool for entry in self._entries.values()]

    def items(self) -> list[tuple[PoolKey, WorkerPool]]:
        """Return all pools with their keys."""
        return [(key, entry.pool) for key, entry in self._entries.items()]

    def count_events(self) -> ProcessEvents:
        """Return what has happened to the workers of all pools, also of ended ones."""
        return self._past_events.plus(self.pools)

    def __contains__(self, key: PoolKey) -> bool:
        return key in self._entries

    async def acquire(
        self,
        key: PoolKey,
        environment: Environment | None,
        code: AllowedCode = NO_CODE,
        modules: Sequence[str] = (),
    ) -> PoolReference:
        """Return a reference to the started pool of a key, starting it if needed.

        Args:
            modules: What the pool's template imports for the model.

        Raises:
            MLServerError: the pool cannot be started.
        """
        entry = self._entries.get(key)
        if entry is None:
            pool = self._create_pool(key, environment, code)
            pool.prepare(modules)
            entry = self._entries[key] = RefCountedPool(pool)
        else:
            entry.pool.prepare(modules)
        entry.users += 1
        reference = PoolReference(self, key, entry)
        try:
            # Shielded: other callers may wait for the same start when this one is cancelled.
            await asyncio.shield(entry.starting)
        except BaseException:
            await reference.release()
            raise
        return reference

    def _create_pool(
        self, key: PoolKey, environment: Environment | None, code: AllowedCode
    ) -> WorkerPool:
        if self._metrics is None:
            self._metrics = SharedFolder(self._settings)
        size, variables = self._settings.parallel_workers, self._metrics.variables()
        pool = WorkerPool(
            size, self._settings, environment, self._listener, variables, code, self._templates
        )
        pool.launcher.remember(self._refusals, key.models)
        return pool

    async def release(self, key: PoolKey, entry: RefCountedPool) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]
            self._past_events.add(entry.pool)
            await self._stop_pool(entry, self._settings.parallel_workers_timeout)

    async def stop(self, grace: float) -> None:
        """Stop all pools, also those in use."""
        await asyncio.gather(*(self._stop_pool(entry, grace) for entry in self._entries.values()))
        await self._templates.stop()
        if self._metrics is not None:
            self._metrics.close()

    @staticmethod
    async def _stop_pool(entry: RefCountedPool, grace: float) -> None:
        entry.starting.cancel()
        await asyncio.gather(entry.starting, return_exceptions=True)
        await entry.pool.stop(grace)


class PoolReference:
    """One user's reference to a pool."""

    def __init__(self, manager: PoolManager, key: PoolKey, entry: RefCountedPool) -> None:
        self._manager = manager
        self._key = key
        self._entry: RefCountedPool | None = entry
        self.pool = entry.pool

    async def release(self) -> None:
        """Release the reference; the last one stops the pool. Further calls do nothing."""
        entry, self._entry = self._entry, None
        if entry is not None:
            await self._manager.release(self._key, entry)


class PoolExecutor:
    """Loads models into worker processes, or into a thread with `parallel_workers` of 0.

    Args:
        settings: The server's settings.
        listener: Notified of changes, for HTTP workers; with it no model can run in a thread of
            this process.
        template: A template process of the server's own environment that is started already.
    """

    can_cancel_load = True

    def __init__(
        self,
        settings: Settings,
        listener: WorkerListener | None = None,
        template: TemplateProcess | None = None,
    ) -> None:
        self._manager = PoolManager(settings, listener, template)
        self._settings = settings
        self._listener = listener
        self._keys = 0
        self._environments = EnvironmentFinder(settings.environments_dir, settings.load_timeout)
        self._modules: dict[PoolKey, ImportedModules] = {}
        self._in_process: InProcessExecutor | None = None
        self._default: PoolReference | None = None

    async def start(self, models: Sequence[ModelSettings] = ()) -> None:
        modules = await asyncio.to_thread(_list_modules, models)
        self._default = await self._manager.acquire(DEFAULT, None, modules=modules)

    async def load(self, settings: ModelSettings) -> LoadedModel:
        if settings.parallel_workers is not None and settings.parallel_workers <= 0:
            return await self._load_in_process(settings)
        environment = await self._environments.find(settings)
        # An alias may move during the build; the environment is right for the version before that.
        settings = with_resolved_uri(settings, environment.source if environment else None)
        code = await asyncio.to_thread(_find_shipped_code, settings)
        for _ in range(CODE_ATTEMPTS):
            try:
                return await self._load_into_pool(settings, environment, code)
            except MLServerError as error:
                needed = (error.details or {}).get(isolation.NeedsOwnProcess.KEY)
                if needed is None:
                    raise
                code = _Code(**needed["code"]) if needed["code"] else None
                settings = with_resolved_uri(settings, needed["source"])
        raise MLServerError(f"Model {settings.name}: its code changes during the load", 500)

    async def _load_into_pool(
        self, settings: ModelSettings, environment: Environment | None, code: _Code | None
    ) -> LoadedModel:
        self._keys += 1
        key = f"{settings.name}#{self._keys}"
        limit = settings.request_timeout or self._settings.request_timeout
        reference = await self._acquire_pool(settings, environment, code, key)
        try:
            info = await reference.pool.load(key, settings)
        except BaseException:
            await reference.release()
            raise
        return PooledModel(reference, key, info, limit, self._listener)

    async def _acquire_pool(
        self,
        settings: ModelSettings,
        environment: Environment | None,
        code: _Code | None,
        model_key: str,
    ) -> PoolReference:
        group = (settings.parameters.inference_pool_gid if settings.parameters else None) or ""
        environment_key = environment.key if environment else ""
        own_key = PoolKey(environment_key, group, model_key)
        if code is None:
            key, allowed_code = PoolKey(environment_key, group), NO_CODE
            reason = await self._find_conflict(settings, key)
        elif group:
            key = PoolKey(environment_key, group, code.digest)
            allowed_code = AllowedCode(code.digest, tuple(code.modules))
            reason = None
        else:
            key, allowed_code = own_key, AllowedCode(isolation.ANY_CODE, tuple(code.modules))
            reason = f"it ships code ({code.names})"
        if reason is not None:
            key = own_key
        if reason is not None or code is not None:
            _log_pool(settings.name, group, code, reason)
        if environment is not None and key not in self._manager:
            await self._environments.check(environment)
        modules = await asyncio.to_thread(_list_modules, [settings])
        return await self._manager.acquire(key, environment, allowed_code, modules)

    async def _find_conflict(self, settings: ModelSettings, key: PoolKey) -> str | None:
        """Return why a model cannot join a pool; None if it can, and its modules are registered."""
        setting = settings.parameters.isolation if settings.parameters else None
        if setting == "model":
            return "its setting 'isolation' is 'model'"
        modules = await asyncio.to_thread(FolderModules.from_settings, settings)
        if modules is None:
            return None
        imported = self._modules.setdefault(key, ImportedModules())
        reason = imported.find_conflict(modules) if setting is None else None
        if reason is None:
            imported.add(modules)
        return reason

    async def _load_in_process(self, settings: ModelSettings) -> LoadedModel:
        if self._listener is not None:
            raise MLServerError(
                f"Model {settings.name}: HTTP workers cannot call a model in the server's process "
                "('parallel_workers' of 0): set 'http_workers' to 1, or leave it out",
                500,
            )
        if self._in_process is None:
            self._in_process = InProcessExecutor(self._settings)
            await self._in_process.start()
        return await self._in_process.load(settings)

    async def stop(self, grace: float) -> None:
        self._environments.stop()
        if self._in_process is not None:
            await self._in_process.stop(grace)
        await self._manager.stop(grace)

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [pid for pool in self._manager.pools for pid in pool.pids]

    def pools(self) -> list[tuple[PoolKey, WorkerPool]]:
        """Return the worker pools with their keys."""
        return self._manager.items()

    def count_events(self) -> ProcessEvents:
        """Return what has happened to the workers since the start of the server."""
        return self._manager.count_events()

    def report_stuck(self, number: int) -> None:
        """Check the worker with this number, and kill it if it is stuck."""
        for pool in self._manager.pools:
            pool.report_stuck(number)

    @property
    def workers(self) -> list[tuple[int, WorkerProcess]]:
        """The ready workers, each with the number of its pool."""
        return [(pool.number, worker) for pool in self._manager.pools for worker in pool.workers]


class PooledModel(RemoteModel):
    """A model in the workers of a pool, with its reference to the pool."""

    def __init__(
        self,
        reference: PoolReference,
        key: str,
        info: ModelInfo,
        limit: float | None,
        listener: WorkerListener | None,
    ) -> None:
        super().__init__(reference.pool, key, info, limit)
        self.pool = reference.pool
        self._reference = reference
        self._listener = listener

    @property
    def abandoned_calls(self) -> int:
        return sum(worker.abandoned_calls.get(self.key, 0) for worker in self.pool.workers)

    async def unload(self) -> bool:
        try:
            if self._listener is not None:
                await self._listener.wait_model_released(self.key)
            return await self.pool.unload(self.key)
        finally:
            await self._reference.release()


def _log_pool(name: str, group: str, code: _Code | None, reason: str | None) -> None:
    """Log that a model does not run in the default pool, or the pool of its group, and why."""
    pool = "a worker pool of its own"
    if reason is None and code is not None:
        pool = f"the worker pool of group '{group}' for equal code"
        reason = f"it ships code ({code.names})"
    logger.info("Model '%s': runs in %s, since %s", name, pool, reason)


def _list_modules(models: Iterable[ModelSettings]) -> list[str]:
    """Return what a template imports for models in the server's own environment. Blocks."""
    names: dict[str, None] = {}
    for settings in models:
        hooks = find_hooks(settings.implementation_)
        imports = [*hooks.list_imports(settings), *hooks.list_template_imports(settings)]
        names.update(dict.fromkeys(imports))
    return list(names)


def _find_shipped_code(settings: ModelSettings) -> _Code | None:
    """Return the code in the model's local folder, None if there is none. Blocks."""
    code = find_hooks(settings.implementation_).find_shipped_code(settings)
    return None if code is None else _Code(str(code), code.digest, sorted(code.all_modules))
