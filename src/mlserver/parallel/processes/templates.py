"""The templates of a server: one per Python environment with a pool of workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..processors import thread_variables
from .launchers import InterpreterLauncher
from .template import WORKER_VARIABLES, Template, template_variables
from .template_process import TemplateProcess
from .worker_launcher import WorkerLauncher

if TYPE_CHECKING:
    from ...env.environment import Environment
    from ...settings import Settings

_WORKER = "mlserver.parallel.worker.worker"
# -P: the template imports no module of the current folder.
_TEMPLATE_COMMAND = [sys.executable, "-P", "-m", "mlserver.parallel.worker.template"]


def worker_variables(
    settings: Settings, environment: Environment | None, added: Mapping[str, str]
) -> dict[str, str]:
    """Return all environment variables of a worker."""
    threads = thread_variables(settings.parallel_workers)
    variables = {**threads, **WORKER_VARIABLES, **os.environ, **added}
    return variables if environment is None else environment.variables(variables)


def create_interpreter_launcher(
    environment: Environment | None, variables: Mapping[str, str]
) -> InterpreterLauncher:
    """Return the launcher of workers that are new interpreters."""
    command = [sys.executable, "-m", _WORKER]
    if environment is not None:
        command = environment.command("worker")
    return InterpreterLauncher(command, variables)


def start_early(settings: Settings) -> TemplateProcess | None:
    """Start the template process of the server's own environment before the rest of the server.

    None if workers are not forked. Its imports overlap with those of the server.
    """
    if not _may_fork(settings):
        return None
    variables = template_variables(worker_variables(settings, None, {}))
    try:
        return TemplateProcess(_TEMPLATE_COMMAND, variables)
    except OSError:
        return None


def explain_fresh_start(settings: Settings) -> str | None:
    """Return why workers are never forked with these settings; None = they may be."""
    if settings.worker_start != "auto":
        return f"setting 'worker_start' is '{settings.worker_start}'"
    if settings.engine != "local":
        return f"setting 'engine' is '{settings.engine}'"
    return None if sys.platform == "linux" else "this system is not Linux"


def _may_fork(settings: Settings) -> bool:
    return settings.parallel_workers > 0 and explain_fresh_start(settings) is None


class Templates:
    """Templates by the key of their environment; one without users is stopped.

    Args:
        settings: The server's settings.
        early: Process of the server's own environment, if it is started already.
    """

    def __init__(self, settings: Settings, early: TemplateProcess | None = None) -> None:
        self._settings = settings
        self._early = early
        self._templates: dict[str, Template] = {}
        self._users: dict[str, int] = {}

    def acquire(
        self, environment: Environment | None, variables: Mapping[str, str]
    ) -> Template | None:
        """Return the template of an environment, for one more user; None if workers never fork."""
        if not _may_fork(self._settings):
            return None
        key = _get_key(environment)
        if key not in self._templates:
            command, early = _TEMPLATE_COMMAND, self._early
            if environment is not None:
                command, early = environment.command("template"), None
            else:
                self._early = None
            limit = self._settings.load_timeout
            self._templates[key] = Template(command, variables, limit, early)
        self._users[key] = self._users.get(key, 0) + 1
        return self._templates[key]

    async def release(self, environment: Environment | None) -> None:
        """Release a template, if there is one; without users it is stopped."""
        key = _get_key(environment)
        if key not in self._users:
            return
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            await self._templates.pop(key).stop()

    async def stop(self) -> None:
        """Stop all templates, and a process that no pool has used."""
        if self._early is not None:
            early, self._early = self._early, None
            await early.stop()
        templates, self._templates = list(self._templates.values()), {}
        self._users.clear()
        for template in templates:
            await template.stop()


def create_worker_launcher(
    pool: str,
    settings: Settings,
    environment: Environment | None,
    added: Mapping[str, str],
    templates: Templates | None,
    shipped: Collection[str],
) -> WorkerLauncher:
    """Return the launcher of a pool's workers.

    Args:
        pool: The pool's name in the log.
        added: Additional environment variables of the workers.
        templates: None = every worker is a new interpreter.
        shipped: Top-level names of modules that models of the pool ship.
    """
    variables = worker_variables(settings, environment, added)
    interpreters = create_interpreter_launcher(environment, variables)
    template = None if templates is None else templates.acquire(environment, variables)
    reason = explain_fresh_start(settings)
    return WorkerLauncher(pool, interpreters, template, variables, shipped, reason)


def _get_key(environment: Environment | None) -> str:
    return "" if environment is None else environment.key
