"""A pool of worker processes: a fixed number of workers, each holding every model of the pool.

A worker that dies is replaced, after growing pauses if it keeps dying. A replacement that cannot
load one of the models serves the others until a worker with all models replaces it. A worker that
does not react past a model's time limit is killed. `pool_manager` decides which pool a model is
loaded into.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..env.environment import Environment, own_paths
from ..errors import MLServerError, ModelFailed, Unavailable
from ..logging import get_logger
from ..settings import ModelSettings, Settings
from .allowed_code import NO_CODE, AllowedCode
from .child_main import absolute_sys_path
from .child_process import ChildProcess as WorkerProcess
from .death_count import DeathCount, ReplacementLoadFailed, WorkerExits
from .executor import ModelInfo, WorkerListener
from .model_load import load_into
from .model_source import loads_first_alone
from .model_unload import unload_from
from .out_of_memory import describe_death
from .processes.templates import Templates, create_worker_launcher
from .remote_model import WorkerGroup
from .rpc.client import WorkerDied
from .rpc.protocol import Frame, MessageType
from .stuck_workers import kill_if_stuck, kill_stalled, record_abandoned, watch

logger = get_logger()
_numbers = itertools.count(1)

START_TIMEOUT = 120.0
# Seconds before the next start after a worker did not start. Short at most: until then the pool
# lacks a worker.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
# Seconds before the next attempt to replace a worker that lacks a model.
FIRST_REPAIR, LONGEST_REPAIR = 1.0, 30.0


class WorkerPool(WorkerGroup[WorkerProcess]):
    """Workers that all hold the same models.

    Args:
        size: Number of workers.
        settings: The server's settings, passed to each worker.
        environment: The Python environment that the workers run in; None = the server's own.
        listener: Notified of changes, for other processes that call the workers.
        variables: Additional environment variables of the workers.
        code: Which models' code the workers may load.
        templates: Templates of the server, which workers are forked from; None = every worker is a
            new interpreter.

    Attributes:
        number: Unique among all pools of this server.
        size: Number of workers while none is being replaced.
        exits: The unexpected exits of its workers.
        launcher: Starts its workers.
    """

    def __init__(
        self,
        size: int,
        settings: Settings,
        environment: Environment | None = None,
        listener: WorkerListener | None = None,
        variables: Mapping[str, str] | None = None,
        code: AllowedCode = NO_CODE,
        templates: Templates | None = None,
    ) -> None:
        super().__init__()
        self.number = next(_numbers)
        self._listener = listener
        self.size = size
        self._settings = settings
        self._environment = environment
        self._code = code
        self._templates = templates
        self.launcher = create_worker_launcher(
            f"pool {self.number}", settings, environment, variables or {}, templates, code.modules
        )
        self._models: dict[str, ModelSettings] = {}
        self._infos: dict[str, ModelInfo] = {}
        self._sequential_load = asyncio.Lock()
        self._retiring: list[WorkerProcess] = []
        self._loads: Counter[int] = Counter()  # by the number of the worker
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._deaths = DeathCount(size)
        self.exits = WorkerExits()

    @property
    def workers(self) -> list[WorkerProcess]:
        return list(self._ready)

    @property
    def has_stopped_forking(self) -> bool:
        return self.launcher.has_stopped_forking

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._ready]

    def prepare(self, modules: Sequence[str]) -> None:
        """Import modules of models in the template that workers are forked from."""
        self.launcher.prepare(modules)

    async def start(self) -> None:
        """Start all workers. Raises `MLServerError` if one cannot start."""
        starts = [self._start_worker() for _ in range(self.size)]
        results = await asyncio.gather(*starts, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            await self.stop(1.0)
            raise MLServerError(f"A worker process could not be started: {errors[0]!r}", 500)
        self._spawn(watch(self._list_running, self._spawn))

    async def stop(self, grace: float) -> None:
        """End all workers; kill those that still run after `grace` seconds."""
        self._is_stopping = True
        super()._announce()  # to the loads that wait for a worker
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        workers, self._ready = self._list_running(), []
        await asyncio.gather(*(worker.stop(grace) for worker in workers))
        await asyncio.gather(*tasks, return_exceptions=True)
        templates, self._templates = self._templates, None
        if templates is not None:
            await templates.release(self._environment)

    # -- starting and replacing workers --

    async def _start_worker(self, excluded: Collection[str] = ()) -> WorkerProcess:
        """Start a worker, load the pool's models into it, and add it to the ready workers.

        Args:
            excluded: Keys of models that it need not load.

        Raises:
            ReplacementLoadFailed: it cannot load a model.
            WorkerDied, TimeoutError, OSError: it cannot be started.
        """
        worker = self._create_worker()
        init = {
            "settings": self._settings.to_frame(),
            "sys_path": absolute_sys_path() if self._environment is None else own_paths(),
            "allowed_code": self._code.allowed,
        }
        try:
            await worker.start(init, START_TIMEOUT)
            while missing := self._missing_models(worker, excluded):
                await self._reload_model(worker, missing[0])
            if worker.is_gone:
                raise WorkerDied
        except BaseException as error:
            if worker.is_gone or isinstance(error, TimeoutError):
                self.launcher.record_start(worker.is_forked, is_ready=False)
            worker.kill()
            await asyncio.shield(worker.reap())
            raise
        self.launcher.record_start(worker.is_forked, is_ready=True)
        self._ready.append(worker)
        self._announce()
        for key in worker.model_keys - self._models.keys():
            self._spawn(self._drop(key))  # unloaded from the pool while this worker loaded it
        while len(self._ready) > self.size:
            self._retire(max(self._ready, key=lambda ready: len(self._missing_models(ready))))
        return worker

    def _create_worker(self) -> WorkerProcess:
        has_peers = self._listener is not None
        return WorkerProcess(self.launcher, self._on_exit, self._on_notification, has_peers)

    def _missing_models(self, worker: WorkerProcess, excluded: Collection[str] = ()) -> list[str]:
        return [key for key in self._models if key not in {*worker.model_keys, *excluded}]

    async def _reload_model(self, worker: WorkerProcess, key: str) -> None:
        try:
            await self._load_into(worker, key, self._models[key])
        except (WorkerDied, MLServerError) as error:
            raise ReplacementLoadFailed(key, error) from error

    def _retire(self, worker: WorkerProcess) -> None:
        """Send no further requests to a worker, and end it after its last call and stream."""
        self._ready.remove(worker)
        self._retiring.append(worker)
        self._spawn(self._end(worker))

    async def _end(self, worker: WorkerProcess) -> None:
        try:
            if self._listener is not None:
                await self._listener.wait_worker_released(worker.number)
            await worker.wait_idle()
        finally:
            await worker.stop(self._settings.parallel_workers_timeout)
            self._retiring.remove(worker)

    def _list_running(self) -> list[WorkerProcess]:
        """Return all workers with requests, also those that receive no further ones."""
        return [*self._ready, *self._retiring]

    def _on_notification(self, frame: Frame) -> None:
        if frame.kind == MessageType.METRICS:
            from .. import metrics

            metrics.receive(metrics.Sample(*frame.head))
        elif frame.kind == MessageType.STALLED:
            kill_stalled(self._list_running(), **frame.head)
        elif frame.kind == MessageType.ABANDONED:
            record_abandoned(self._ready, **frame.head)
        elif frame.kind == MessageType.IMPORTED:
            self.launcher.learn(frame.head)

    def _on_exit(self, worker: WorkerProcess) -> None:
        if worker not in self._ready:
            return  # not ready yet: `_start_worker` handles the failure
        self._ready.remove(worker)
        self._record_death()
        self._notify_listener()
        if not self._is_stopping:
            self._spawn(self._replace(worker))

    async def _replace(self, dead: WorkerProcess) -> None:
        code = await dead.reap()
        text = describe_death(code)
        self.exits.add(dead.pid, text, dead.classify_exit(code))
        logger.error("Worker %s ended unexpectedly (%s); starting another", dead.pid, text)
        pause = FIRST_PAUSE
        excluded: set[str] = set()
        failures: Counter[str] = Counter()
        while not self._is_stopping:
            self._deaths.add(time.monotonic())
            if self._deaths.exceeds_limit(time.monotonic()):
                await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                worker = await self._start_worker(excluded)
            except ReplacementLoadFailed as error:
                logger.error("A replacement worker could not load model %s", error)
                failures[error.key] += 1
                # A worker killed from outside while it loads says nothing about the model: one more
                # attempt.
                if not isinstance(error.__cause__, WorkerDied) or failures[error.key] > 1:
                    excluded.add(error.key)
                if excluded.issuperset(self._models):
                    excluded.clear()  # a worker without a model serves no request
                continue
            except Exception as error:
                logger.error(
                    "A replacement worker could not be started: %r; next attempt in %.1f s",
                    error,
                    pause,
                )
                continue
            if excluded:
                self._spawn(self._complete(worker))
            return

    async def _complete(self, worker: WorkerProcess) -> None:
        """Start workers until one has all models; it replaces the one that lacks some."""
        pause = FIRST_REPAIR
        while worker in self._ready and self._missing_models(worker):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_REPAIR)
            try:
                await self._start_worker()
            except Exception as error:
                logger.error(
                    "A worker with all models could not be started: %s; next attempt in %.0f s",
                    error,
                    pause,
                )

    # -- stuck workers --

    def report_stuck(self, number: int) -> None:
        """Check a worker, because another process waits too long for its answer."""
        for worker in self._list_running():
            if worker.number == number:
                self._spawn(kill_if_stuck(worker))

    def _announce(self) -> None:
        super()._announce()
        self._notify_listener()

    def _notify_listener(self) -> None:
        if self._listener is not None:
            self._listener.on_workers_changed()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- models --

    async def load(self, key: str, settings: ModelSettings) -> ModelInfo:
        """Load a model into every worker.

        Raises:
            MLServerError: a load failed; no worker holds the model then.
        """
        try:
            if not await self._load_concurrently(key, settings):
                async with self._sequential_load:
                    await self._load_sequentially(key, settings)
        except BaseException:
            await self._drop(key)
            raise
        # No await since all ready workers hold the model: a worker that is being started finds the
        # key in `_models`.
        self._models[key] = settings
        return self._infos[key]

    async def _load_concurrently(self, key: str, settings: ModelSettings) -> bool:
        """Load into all workers at once; return False if a worker died or none is ready."""
        while workers := [worker for worker in self._ready if key not in worker.model_keys]:
            if key not in self._infos and loads_first_alone(settings):
                workers = [min(workers, key=self._count_calls)]
            numbers = [worker.number for worker in workers]
            self._loads.update(numbers)
            loads = [self._load_into(worker, key, settings) for worker in workers]
            try:
                results = await asyncio.gather(*loads, return_exceptions=True)
            finally:
                self._loads.subtract(numbers)
            errors = [result for result in results if result is not None]
            for error in errors:
                if not isinstance(error, WorkerDied):
                    raise error
            if errors:
                return False
        return bool(self._ready)

    def _count_calls(self, worker: WorkerProcess) -> tuple[int, int]:
        """Return how many loads a worker has to do, and its calls that are sent."""
        return self._loads[worker.number], worker.in_flight

    async def _load_sequentially(self, key: str, settings: ModelSettings) -> None:
        """Load into workers sequentially under a lock, so that a crash is this model's."""
        while True:
            await self._wait_ready()
            missing = [worker for worker in self._ready if key not in worker.model_keys]
            if not missing:
                return
            try:
                await self._load_into(missing[0], key, settings)
            except WorkerDied:
                exit_text = describe_death(await missing[0].reap())
                raise ModelFailed(
                    f"Model {settings.name}: the worker process ended ({exit_text}) during the load"
                ) from None

    async def _wait_ready(self) -> None:
        """Return when a worker is ready. Raises `Unavailable` after `START_TIMEOUT`, or a stop."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not self._ready:
                    if self._is_stopping:
                        raise Unavailable("The worker processes are being stopped")
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable("No worker process could be started to load the model") from None

    async def _load_into(self, worker: WorkerProcess, key: str, settings: ModelSettings) -> None:
        self._infos[key] = await load_into(
            worker, key, settings, self._infos.get(key), self._settings, self.launcher, self._spawn
        )

    async def unload(self, key: str) -> bool:
        """Unload a model from every worker; return whether all reported success.

        Raises:
            MLServerError: the model's `unload` raised; no worker holds the model then either.
        """
        self._models.pop(key, None)
        self._infos.pop(key, None)
        holders = [worker for worker in self._ready if key in worker.model_keys]
        for worker in holders:
            worker.model_keys.discard(key)
        calls = [unload_from(worker, key, self._settings.unload_timeout) for worker in holders]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, MLServerError):
                raise result
        return all(bool(result.head) for result in results if not isinstance(result, BaseException))

    async def _drop(self, key: str) -> None:
        """Unload a model; the worker's log has what its `unload` raises."""
        with suppress(MLServerError):
            await self.unload(key)
