"""Starts the workers of one pool: forks of a template, or new interpreters where it refuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...logging import get_logger
from .launchers import InterpreterLauncher, Launched
from .template import Template
from .template_process import ForkRefused

logger = get_logger()

# Forked workers in a row that died before they were ready, after which the pool starts new
# interpreters.
MAX_FAILED_FORKS = 2


class WorkerLauncher:
    """Starts workers.

    Args:
        pool: The pool's name in the log.
        interpreters: Starts new interpreters.
        template: Forked for each worker; None = each is a new interpreter.
        variables: Environment variables that a forked worker sets.
        shipped: Top-level names of modules that models of the pool ship.

    Attributes:
        has_stopped_forking: Whether a template was given and is not forked any more.
    """

    def __init__(
        self,
        pool: str,
        interpreters: InterpreterLauncher,
        template: Template | None,
        variables: Mapping[str, str],
        shipped: Collection[str] = (),
    ) -> None:
        self._pool = pool
        self._interpreters = interpreters
        self._template = template
        self._variables = variables
        self._shipped = sorted(shipped)
        self._failed_forks = 0
        self.has_stopped_forking = False

    async def launch(self, fds: Sequence[int]) -> Launched:
        if self._template is not None:
            try:
                return await self._template.fork(fds, self._variables, self._shipped)
            except ForkRefused as refusal:
                self.stop_forking(str(refusal))
        return await self._interpreters.launch(fds)

    def prepare(self, modules: Sequence[str]) -> None:
        """Import modules in the template before workers are forked."""
        if self._template is not None:
            self._template.prepare(modules)

    def learn(self, modules: Sequence[str]) -> None:
        """Import modules in the template that a worker has imported."""
        if self._template is not None:
            self._template.learn(modules)

    def record_start(self, is_forked: bool, is_ready: bool) -> None:
        """Count forked workers that died, or did not react, before they were ready."""
        if not is_forked:
            return
        self._failed_forks = 0 if is_ready else self._failed_forks + 1
        if self._failed_forks >= MAX_FAILED_FORKS:
            self.stop_forking(f"{self._failed_forks} forked workers in a row ended at their start")

    def stop_forking(self, reason: str) -> None:
        """Start new interpreters from now on, and log why."""
        if self._template is None:
            return
        self._template = None
        self.has_stopped_forking = True
        logger.info("Workers of %s start as new interpreters, not as forks: %s", self._pool, reason)
