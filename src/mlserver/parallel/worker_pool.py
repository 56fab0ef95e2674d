"""A pool of worker processes: a fixed number of workers, each holding every model of the pool.

A worker that dies is replaced, with growing pauses if it keeps dying. A replacement that cannot load one of the models
serves the others, until one that holds them all takes its place. A worker that hangs past a model's time limit is killed.
Which model lives in which pool is in `pools`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ..env.environment import Environment, own_paths
from ..errors import MLServerError, ModelFailed, Unavailable
from ..isolation import NO_CODE
from ..logging import get_logger
from ..settings import ModelSettings, Settings
from .child_main import absolute_sys_path
from .child_process import ChildProcess as WorkerProcess
from .child_process import describe_exit
from .executor import ModelInfo, WorkerListener
from .processors import thread_variables
from .remote_model import WorkerGroup
from .rpc.client import WorkerDied
from .rpc.protocol import Frame, MessageType

logger = get_logger()
_numbers = itertools.count(1)

START_TIMEOUT = 120.0
# Before a worker that did not even start is started again: short at most, for the pool is short of a worker until then.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
# Before a worker that lacks a model is to be replaced by a complete one.
FIRST_REPAIR, LONGEST_REPAIR = 1.0, 30.0
STEADY_AFTER = (
    60.0  # seconds of life after which a worker's death is no longer held against its successor
)
WATCH_INTERVAL = 0.5
PING_GRACE = 1.0


class ReplacementLoadFailed(Exception):
    """A new worker could not load a model that the others hold; the cause says why."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(f"{key.partition('#')[0]}: {error!r}")
        self.key = key


class WorkerPool(WorkerGroup[WorkerProcess]):
    """Workers that all hold the same models.

    Args:
        size: Number of workers.
        settings: The server's settings, passed on to each worker.
        home: The Python environment that the workers run in; None = the server's own.
        audience: Who else asks the workers.
        variables: More environment variables of the workers.
        may_load: Which models' code the workers may load, see `isolation`.

    Attributes:
        number: Like no other pool's of this server, ever.
    """

    def __init__(
        self,
        size: int,
        settings: Settings,
        home: Environment | None = None,
        listener: WorkerListener | None = None,
        variables: Mapping[str, str] | None = None,
        may_load: str = NO_CODE,
    ) -> None:
        super().__init__()
        self.number = next(_numbers)
        self._listener = listener
        self._size = size
        self._settings = settings
        self._home = home
        self._variables = dict(variables or {})
        self._may_load = may_load
        self._command = (
            [sys.executable, "-m", "mlserver.parallel.worker.worker"]
            if home is None
            else home.command()
        )
        self._models: dict[str, ModelSettings] = {}
        self._infos: dict[str, ModelInfo] = {}
        self._one_by_one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._deaths = 0

    @property
    def workers(self) -> list[WorkerProcess]:
        return list(self._ready)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._ready]

    async def start(self) -> None:
        """Start all workers. Raises `MLServerError` if one cannot start."""
        results = await asyncio.gather(
            *(self._start_worker() for _ in range(self._size)), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            await self.stop(1.0)
            raise MLServerError(f"A worker process could not be started: {failures[0]!r}", 500)
        self._spawn(self._watch())

    async def stop(self, grace: float) -> None:
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        workers, self._ready = self._ready, []
        await asyncio.gather(*(worker.stop(grace) for worker in workers))
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- workers --

    async def _start_worker(self, left_out: Collection[str] = ()) -> WorkerProcess:
        """A new worker that holds all models, or all but some, joins the ready ones.

        Raises:
            _CannotLoad: it cannot hold them all.
            WorkerDied, TimeoutError, OSError: it cannot even be started.
        """
        shared = self._listener is not None
        worker = WorkerProcess(
            self._command, self._environment(), self._on_exit, self._on_notification, shared
        )
        paths = absolute_sys_path() if self._home is None else own_paths()
        init = {
            "settings": self._settings.to_frame(),
            "sys_path": paths,
            "may_load": self._may_load,
        }
        try:
            await worker.start(init, START_TIMEOUT)
            while missing := self._missing_in(worker, left_out):
                await self._load_again(worker, missing[0])
            if worker.gone:
                raise WorkerDied
        except BaseException:
            worker.kill()
            await asyncio.shield(worker.reap())
            raise
        self._ready.append(worker)
        self._announce()
        for key in worker.loaded - self._models.keys():
            self._spawn(self._drop(key))  # it was unloaded while this worker loaded it
        while len(self._ready) > self._size:
            self._retire(max(self._ready, key=lambda one: len(self._missing_in(one))))
        return worker

    def _missing_in(self, worker: WorkerProcess, left_out: Collection[str] = ()) -> list[str]:
        return [key for key in self._models if key not in worker.loaded and key not in left_out]

    async def _load_again(self, worker: WorkerProcess, key: str) -> None:
        try:
            await self._load_into(worker, key, self._models[key])
        except (WorkerDied, MLServerError) as error:
            raise ReplacementLoadFailed(key, error) from error

    def _retire(self, worker: WorkerProcess) -> None:
        """No new request goes to this worker; when it has answered what it has, it ends."""
        self._ready.remove(worker)
        self._spawn(self._end(worker))

    async def _end(self, worker: WorkerProcess) -> None:
        if self._listener is not None:
            await self._listener.wait_worker_released(worker.number)
        await worker.retire(self._settings.parallel_workers_timeout)

    def _environment(self) -> dict[str, str]:
        """The server's own, with the processors shared out among the workers' numerical libraries."""
        variables = {**thread_variables(self._size), **os.environ, **self._variables}
        return variables if self._home is None else self._home.variables(variables)

    def _on_notification(self, frame: Frame) -> None:
        if frame.kind == MessageType.METRICS:
            from .. import metrics

            metrics.receive(metrics.Sample(*frame.head))

    def _on_exit(self, worker: WorkerProcess) -> None:
        if worker not in self._ready:
            return  # it never was ready: whoever started it knows
        self._ready.remove(worker)
        self._notify_listener()
        if not self._stopping:
            self._spawn(self._replace(worker))

    async def _replace(self, dead: WorkerProcess) -> None:
        code = await dead.reap()
        logger.error(
            "Worker %s ended unexpectedly (%s); starting another", dead.pid, describe_exit(code)
        )
        born, pause = time.monotonic(), FIRST_PAUSE
        left_out: set[str] = set()
        stuck_reports: Counter[str] = Counter()
        while not self._stopping:
            self._deaths += 1
            if self._deaths > self._size:
                await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                worker = await self._start_worker(left_out)
            except ReplacementLoadFailed as error:
                logger.error("A replacement worker could not load model %s", error)
                stuck_reports[error.key] += 1
                # A worker may be killed while it loads, through no fault of the model: that is tried once more.
                if not isinstance(error.__cause__, WorkerDied) or stuck_reports[error.key] > 1:
                    left_out.add(error.key)
                if left_out.issuperset(self._models):
                    left_out.clear()  # a worker without a model is of no use
                continue
            except Exception as error:
                logger.error(
                    "A replacement worker could not be started: %r; trying again in %.1f s",
                    error,
                    pause,
                )
                continue
            if left_out:
                self._spawn(self._complete(worker))
            if time.monotonic() - born > STEADY_AFTER:
                self._deaths = 0
            asyncio.get_running_loop().call_later(STEADY_AFTER, self._forgive)
            return

    async def _complete(self, worker: WorkerProcess) -> None:
        """Start another worker, which takes the place of one that lacks models, as soon as it can load them all."""
        pause = FIRST_REPAIR
        while worker in self._ready and self._missing_in(worker):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_REPAIR)
            try:
                await self._start_worker()
            except Exception as error:
                logger.error(
                    "A worker with all models could not be started: %s; trying again in %.0f s",
                    error,
                    pause,
                )

    def _forgive(self) -> None:
        self._deaths = max(0, self._deaths - 1)

    async def _watch(self) -> None:
        """Kill workers that outlived a request's limit and do not even answer a ping."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            now = time.monotonic()
            for worker in [worker for worker in self._ready if worker.overdue(now)]:
                self._spawn(self._end_if_stuck(worker))

    def report_stuck(self, number: int) -> None:
        """Somebody else found a worker not to answer in time."""
        for worker in self._ready:
            if worker.number == number:
                self._spawn(self._end_if_stuck(worker))

    async def _end_if_stuck(self, worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(PING_GRACE):
                await worker.call(MessageType.PING, None)
        except TimeoutError:
            logger.error("Worker %s is stuck in a request past its time limit: killed", worker.pid)
            worker.kill()
        except WorkerDied:
            return

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
        """Load into every worker. Raises `MLServerError` with the reason; then no worker holds it."""
        try:
            if not await self._load_everywhere(key, settings):
                async with self._one_by_one:  # several may have been loading when the worker ended
                    await self._load_one_by_one(key, settings)
        except BaseException:
            await self._drop(key)
            raise
        # Nothing was awaited since all ready workers held it: one that is being started finds it here.
        self._models[key] = settings
        return self._infos[key]

    async def _load_everywhere(self, key: str, settings: ModelSettings) -> bool:
        """False: a worker ended before it had loaded, or there was none."""
        while workers := [worker for worker in self._ready if key not in worker.loaded]:
            if key not in self._infos and _is_mutable_alias(settings):
                workers = workers[:1]  # what the first one finds there, the others load
            loads = [self._load_into(worker, key, settings) for worker in workers]
            problems = [
                one
                for one in await asyncio.gather(*loads, return_exceptions=True)
                if one is not None
            ]
            if not all(isinstance(problem, WorkerDied) for problem in problems):
                raise next(problem for problem in problems if not isinstance(problem, WorkerDied))
            if problems:
                return False
        return bool(self._ready)

    async def _load_one_by_one(self, key: str, settings: ModelSettings) -> None:
        """Into one worker after another, while no other model is loaded in this way: who ends a worker now is guilty."""
        while True:
            await self._some_worker()
            lacking = [worker for worker in self._ready if key not in worker.loaded]
            if not lacking:
                return
            try:
                await self._load_into(lacking[0], key, settings)
            except WorkerDied:
                how = describe_exit(await lacking[0].reap())
                raise ModelFailed(
                    f"Model {settings.name}: the worker process ended ({how}) while it loaded"
                ) from None

    async def _some_worker(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not self._ready:
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable("No worker process could be started to load the model") from None

    async def _load_into(self, worker: WorkerProcess, key: str, settings: ModelSettings) -> None:
        limit = self._settings.load_timeout
        settings = with_resolved_uri(settings, _source(self._infos.get(key)))
        try:
            async with asyncio.timeout(limit):
                frame = await worker.call(
                    MessageType.LOAD,
                    {"key": key, "settings": settings.to_frame()},
                    kill_after=limit,
                )
        except TimeoutError:
            raise MLServerError(
                f"Its load took longer than {limit:g} seconds (setting 'load_timeout')", 504
            ) from None
        worker.loaded.add(key)
        self._infos[key] = ModelInfo.from_plain(frame.head)

    async def unload(self, key: str) -> bool:
        """Unload from every worker. Raises `MLServerError` if the model's `unload` raised; then no worker has it either."""
        self._models.pop(key, None)
        self._infos.pop(key, None)
        holders = [worker for worker in self._ready if key in worker.loaded]
        for worker in holders:
            worker.loaded.discard(key)
        answers = await asyncio.gather(
            *(worker.call(MessageType.UNLOAD, {"key": key}) for worker in holders),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, MLServerError):
                raise answer
        return all(bool(answer.head) for answer in answers if not isinstance(answer, BaseException))

    async def _drop(self, key: str) -> None:
        """Unload what is of no use; the log has what its `unload` raises."""
        with suppress(MLServerError):
            await self.unload(key)


def _is_mutable_alias(settings: ModelSettings) -> bool:
    """Whether the model's address may point elsewhere by the time that the next worker asks."""
    uri = settings.parameters.uri if settings.parameters else None
    return uri is not None and uri.startswith("models:/")


def _source(info: ModelInfo | None) -> str | None:
    """Where a loaded model came from, if it says so."""
    parameters = info.metadata.parameters if info is not None else None
    source = (parameters.model_extra or {}).get("source") if parameters is not None else None
    return source if isinstance(source, str) else None


def with_resolved_uri(settings: ModelSettings, source: str | None) -> ModelSettings:
    """The settings with the address that a model was found at, so that all of its parts are of the same version."""
    if source is None or settings.parameters is None or not _is_mutable_alias(settings):
        return settings
    return settings.model_copy(
        update={"parameters": settings.parameters.model_copy(update={"uri": source})}
    )
