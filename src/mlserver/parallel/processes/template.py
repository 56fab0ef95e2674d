"""The template of one Python environment: started on first use, started again when it ends.

Why a template: docs/explanation/decisions/template-processes.md. Where it cannot be forked, workers
are new interpreters, and another process is tried later in the background.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from ...logging import get_logger
from ..death_count import DeathCount
from .exit_codes import describe_exit
from .forked import NotAdopted, reap_strays
from .launchers import Launched
from .linux import can_adopt
from .template_process import (
    ForkRefused,
    ModuleConflict,
    RequestNotSent,
    TemplateEnded,
    TemplateProcess,
)

logger = get_logger()

# Seconds for one fork of a process that has finished its imports.
FORK_TIMEOUT = 10.0
# Ends of the process within a minute that are replaced; after more, workers are new interpreters.
MAX_ENDS = 2
# Seconds after which another process is tried where forks are refused; no more after the last one.
# The reason may be temporary: a thread, a package, a lack of processes or time.
RETRY_PAUSES = (60.0, 600.0, 3600.0)
# Set in the process, and in the environment of every worker.
WORKER_VARIABLES = {
    # pyarrow's jemalloc starts a thread at import.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # onnxruntime opens an SQLite file in the user's cache folder and starts a thread at import.
    "ORT_DISABLE_TELEMETRY": "1",
}
# OpenBLAS starts its threads when it is loaded; a worker sets the number after the fork.
_TEMPLATE_VARIABLES = {"OPENBLAS_NUM_THREADS": "1"}


def template_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a template process for workers with `variables`."""
    return {**variables, **_TEMPLATE_VARIABLES}


class Template:
    """A template process and its replacements.

    Args:
        command: Arguments that start the process; its file descriptor is appended.
        variables: Environment variables of the workers.
        import_limit: Seconds for the imports of one request; None = no limit.
        process: The process, if it is started already.

    Attributes:
        refusal: Why no worker is forked at present; None = workers are forked.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        import_limit: float | None,
        process: TemplateProcess | None = None,
    ) -> None:
        self._command = command
        self._variables = template_variables(variables)
        self._import_limit = import_limit
        self._modules: list[str] = []
        self._learned: list[str] = []
        self._refused_modules: set[str] = set()
        self._ends = DeathCount(MAX_ENDS)
        self._process: TemplateProcess | None = None
        # With the task that waits for the end of each.
        self._running: dict[TemplateProcess, asyncio.Task[None]] = {}
        # One fork at a time, so that `FORK_TIMEOUT` is not exceeded by the forks before it, and the
        # environments of many workers do not fill the queue of the connection.
        self._forking = asyncio.Lock()
        self._imports: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._has_forked = False
        self._waiting_forks = 0
        self._retries = 0
        self.refusal: str | None = None
        if not can_adopt():
            self.refusal = "this system cannot adopt forked processes"
        elif process is not None:
            self._adopt(process)

    @property
    def pid(self) -> int | None:
        """Process id; None = no process runs."""
        process = self._process
        return None if process is None or process.is_ended else process.pid

    # -- what it imports --

    def prepare(self, names: Iterable[str]) -> None:
        """Import modules, now if the process runs, else at its start."""
        added = [name for name in names if name not in self._modules]
        self._modules += added
        if added or self._imports is None:
            self._import(added)

    def learn(self, names: Iterable[str]) -> None:
        """Import modules that a worker has imported, unless they prevent forks."""
        known = {*self._modules, *self._learned, *self._refused_modules}
        added = [name for name in names if name not in known]
        if added and self.refusal is None:
            self._learned += added
            self._import(added)

    def _import(self, names: Sequence[str]) -> None:
        """Start the imports; forks wait for them."""
        if self.refusal is not None or self._is_stopped:
            return
        process = self._process
        if process is None:
            try:
                process = self._start()
            except OSError as error:
                self._refuse(f"the template process could not be started ({error})")
                return
        if self._imports is None:
            names = [*self._modules, *self._learned]
        self._imports = self._spawn(self._wait_imports(process, names, self._imports))

    def _start(self) -> TemplateProcess:
        process = TemplateProcess(self._command, self._variables)
        self._adopt(process)
        return process

    def _adopt(self, process: TemplateProcess) -> None:
        self._process = process
        process.attach()
        self._running[process] = self._spawn(self._watch(process))

    async def _wait_imports(
        self,
        process: TemplateProcess,
        names: Sequence[str],
        earlier: asyncio.Task[None] | None,
    ) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        try:
            async with asyncio.timeout(self._import_limit):
                is_background = self._has_forked and not self._waiting_forks
                obstacle = await process.import_modules(names, is_background)
        except TemplateEnded:
            return
        except RequestNotSent as error:
            obstacle = str(error)
        except TimeoutError:
            obstacle = f"its imports exceeded {self._import_limit:g} s"
        if obstacle is not None:
            self._handle_obstacle(process, obstacle)

    def _handle_obstacle(self, process: TemplateProcess, obstacle: str) -> None:
        if process is not self._process:
            return
        if self._learned:
            self._forget_learned(process, obstacle)
        else:
            self._refuse(obstacle)

    def _forget_learned(self, process: TemplateProcess, obstacle: str) -> None:
        """Start a process without the modules that a worker has imported."""
        logger.debug("A template process is started again without learned modules: %s", obstacle)
        self._refused_modules.update(self._learned)
        self._learned.clear()
        self._process = self._imports = None
        process.kill()
        self._import(())

    # -- forks --

    async def fork(
        self, fds: Sequence[int], variables: Mapping[str, str], shipped: Sequence[str]
    ) -> Launched:
        """Return a forked worker, see `TemplateProcess.fork`.

        Raises:
            ForkRefused: it cannot be forked, or not for this worker; the text has the reason.
            OSError: the system has no resources for another process.
        """
        async with self._forking:
            while self.refusal is None and not self._is_stopped:
                launched = await self._try_fork(fds, variables, shipped)
                if launched is not None:
                    return launched
        raise ForkRefused(self.refusal or "the server stops")

    async def _try_fork(
        self, fds: Sequence[int], variables: Mapping[str, str], shipped: Sequence[str]
    ) -> Launched | None:
        """Return a forked worker, None if the process has been replaced or forks are refused."""
        if self._process is None:
            self._import(())
        process = self._process
        await self._wait_for_imports()
        if process is None or process is not self._process:
            return None
        try:
            async with asyncio.timeout(FORK_TIMEOUT):
                launched = await process.fork(fds, variables, shipped)
            self._has_forked = True
            return launched
        except TemplateEnded:
            if (watching := self._running.get(process)) is not None:
                await asyncio.wait([watching])
        except (ModuleConflict, RequestNotSent):
            raise
        except ForkRefused as refusal:
            self._handle_obstacle(process, str(refusal))
        except (NotAdopted, ProcessLookupError) as error:
            self._refuse(f"a forked process could not be adopted ({error})")
        except TimeoutError:
            self._refuse(f"the template process was not forked within {FORK_TIMEOUT:g} s")
        return None

    async def _wait_for_imports(self) -> None:
        self._waiting_forks += 1
        try:
            while (imports := self._imports) is not None and not imports.done():
                if self._process is not None:
                    self._process.prioritize_imports()
                await asyncio.wait([imports])
        finally:
            self._waiting_forks -= 1

    def _refuse(self, reason: str) -> None:
        """Fork no worker until another process, later in the background, has no obstacle."""
        self.refusal = reason
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        if self._retries < len(RETRY_PAUSES):
            self._spawn(self._retry(RETRY_PAUSES[self._retries]))
            self._retries += 1

    async def _retry(self, pause: float) -> None:
        """Start another process after a pause; workers are forked again if it has no obstacle."""
        await asyncio.sleep(pause)
        self._ends = DeathCount(MAX_ENDS)
        self._learned.clear()
        self._imports = None
        try:
            process = self._start()
        except OSError as error:
            self._refuse(f"the template process could not be started ({error})")
            return
        try:
            async with asyncio.timeout(self._import_limit):
                obstacle = await process.import_modules(self._modules, is_background=True)
        except TemplateEnded:
            obstacle = "the template process ended while it imported modules"
        except RequestNotSent as error:
            obstacle = str(error)
        except TimeoutError:
            obstacle = f"its imports exceeded {self._import_limit:g} s"
        if obstacle is not None:
            self._refuse(obstacle)
        else:
            self.refusal = None

    # -- its end --

    async def _watch(self, process: TemplateProcess) -> None:
        """Start another process when this one ends."""
        code = await process.wait()
        del self._running[process]
        reap_strays()
        if self._process is not process or self._is_stopped:
            return
        logger.error(
            "Template process %s ended unexpectedly (%s); starting another",
            process.pid,
            describe_exit(code),
        )
        self._process = self._imports = None
        self._ends.add(time.monotonic())
        if self._ends.exceeds_limit(time.monotonic()):
            self._refuse("the template process ended repeatedly")
        else:
            self._import(())

    async def stop(self) -> None:
        """End the process; workers are not affected."""
        self._is_stopped = True
        self._process = None
        for process in list(self._running):
            await process.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        reap_strays()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
