"""Starts the workers of one pool: forks of a template, or new interpreters where it refuses.

The start method is logged when the first worker starts, and whenever it changes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Mapping, Sequence

from ...logging import get_logger
from .fork_refusals import ForkRefusals
from .launchers import InterpreterLauncher, Launched
from .template import Template
from .template_process import ForkRefused, ModuleConflict

logger = get_logger()

# Forked workers in a row that died before they were ready, after which the pool starts new
# interpreters.
MAX_FAILED_FORKS = 2
# Seconds for which it starts new interpreters; permanently after the last one.
FAILURE_PAUSES = (60.0, 600.0, 3600.0)
FORKED = "as forks of a template process"


class WorkerLauncher:
    """Starts workers.

    Args:
        pool: The pool's name in the log.
        interpreters: Starts new interpreters.
        template: Forked for each worker; None = each is a new interpreter.
        variables: Environment variables that a forked worker sets.
        shipped: Top-level names of modules that models of the pool ship.
        reason: Why there is no template, for the log.

    Attributes:
        has_stopped_forking: Whether a template was given and could not be forked at some time.
    """

    def __init__(
        self,
        pool: str,
        interpreters: InterpreterLauncher,
        template: Template | None,
        variables: Mapping[str, str],
        shipped: Collection[str] = (),
        reason: str | None = None,
    ) -> None:
        self._pool = pool
        self._interpreters = interpreters
        self._template = template
        self._variables = variables
        self._shipped = sorted(shipped)
        self._reason = reason
        self._start_method = ""
        self._failed_forks = 0
        self.has_stopped_forking = False
        self._pauses = 0
        self._paused_until = float("-inf")
        self._refusals: ForkRefusals | None = None
        self._models: Hashable = None

    def remember(self, refusals: ForkRefusals, models: Hashable) -> None:
        """Record failed forks, and fork no worker if an earlier pool of these models has failed."""
        self._refusals, self._models = refusals, models
        reason = refusals.get(models)
        if reason is not None and self._template is not None:
            self._stop_forking(f"{reason}, in an earlier pool of the model")

    async def launch(self, fds: Sequence[int]) -> Launched:
        if self._template is not None and time.monotonic() >= self._paused_until:
            try:
                launched = await self._template.fork(fds, self._variables, self._shipped)
            except ModuleConflict as conflict:
                self._stop_forking(str(conflict))
            except ForkRefused as refusal:
                self._log_refusal(str(refusal))
            else:
                self._log_start_method(FORKED)
                return launched
        elif self._template is None and self._reason is not None:
            self._log_fresh(self._reason)
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
            self._pause_forking(
                f"{self._failed_forks} forked workers in a row ended at their start"
            )

    def _pause_forking(self, reason: str) -> None:
        """Start new interpreters for the next pause of `FAILURE_PAUSES`, or permanently."""
        self._record(reason)
        if self._pauses == len(FAILURE_PAUSES):
            self._stop_forking(reason)
            return
        self._paused_until = time.monotonic() + FAILURE_PAUSES[self._pauses]
        self._pauses += 1
        self._failed_forks = 0
        self._log_refusal(reason)

    def stop_forking(self, reason: str) -> None:
        """Start new interpreters from now on, and in the next pools of the models."""
        self._record(reason)
        self._stop_forking(reason)

    def _record(self, reason: str) -> None:
        if self._refusals is not None:
            self._refusals.record(self._models, reason)

    def _stop_forking(self, reason: str) -> None:
        self._template, self._reason = None, reason
        self._log_refusal(reason)

    def _log_refusal(self, reason: str) -> None:
        self.has_stopped_forking = True
        self._log_fresh(reason)

    def _log_fresh(self, reason: str) -> None:
        self._log_start_method(f"as new interpreters, not as forks: {reason}")

    def _log_start_method(self, method: str) -> None:
        if method != self._start_method:
            self._start_method = method
            logger.info("Workers of %s start %s", self._pool, method)
