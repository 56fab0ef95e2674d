"""Hooks of runtimes in the server's process, from the entry point group `mlserver.runtimes`.

A runtime's package declares a subclass of `RuntimeHooks` under the name of its import package:

    [project.entry-points."mlserver.runtimes"]
    mlserver_mine = "mlserver_mine.hooks:Hooks"

A runtime without an entry point is served as well, without built environments and without shared
code detection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from .errors import MLServerError
from .logging import get_logger
from .model_imports import RUNTIMES_GROUP, list_runtimes

if TYPE_CHECKING:
    from .isolation import ShippedCode
    from .settings import ModelSettings

logger = get_logger()

GROUP = RUNTIMES_GROUP


class EnvironmentFiles(TypedDict):
    """What a model's files say about its environment.

    Attributes:
        folder: Absolute path of the model's folder, which requirement lines may refer to.
        source: Address of the model with an explicit version; None = it is a folder on this
            machine.
        python: `major.minor`; None = the server's own.
        lines: Lines of a requirements file.
        code: Descriptions of the model's parts that are code, for `CodePolicy.check_files`.
    """

    folder: str
    source: str | None
    python: str | None
    lines: list[str]
    code: list[str]


class RuntimeHooks:
    """Answers about a runtime's models for the server's process, which imports no runtime.

    The server's process imports the module of a subclass, so that module must not import a model
    library. Only `read_environment` runs in a process of its own and may import anything.

    Attributes:
        package: The import package; a built environment gets a link to it. Set by `find_hooks`.
        implementations: Import paths of the runtime's classes. `production` allows them by default,
            so each of them must call `CodePolicy.check_files` before it reads a model's files.
        extra_keys: Keys of `parameters.extra` that the runtime and the server read; () = unknown,
            so that no key is reported as unknown.
        makes_trials: Whether loads set `MLModel.trial_results`: one worker loads a model first, and
            the others use its results.
        variables: Prefixes of the environment variables that the runtime reads: replicas of models
            on other machines get them too.
        compared_packages: Distributions whose versions should be the same on all nodes of a
            cluster: a node with another one is reported.
        worker_requirements: Requirements of the package itself, added to each model's own in a
            built environment.
        path_hints: Pattern of a whole path -> hint of its 404 response. For paths that the
            runtime's models declare, while none of them is loaded, or that clients of its framework
            use with other servers. `{name}` is replaced by the pattern's group `name`.
        inference_hint: How to run inference over the paths that the runtime's models declare, for
            404 responses.
    """

    package: str = ""
    implementations: tuple[str, ...] = ()
    extra_keys: tuple[str, ...] = ()
    makes_trials: bool = False
    variables: tuple[str, ...] = ()
    compared_packages: tuple[str, ...] = ()
    worker_requirements: tuple[str, ...] = ()
    path_hints: Mapping[str, str] = MappingProxyType({})
    inference_hint: str = ""

    def get_body_hint(self, document: Mapping[str, Any]) -> str:
        """Return what to do with an invalid V2 body that has a format of the runtime's own.

        "" for other bodies. The text is the end of the error's message.
        """
        return ""

    def is_mutable_address(self, uri: str) -> bool:
        """Whether the address may point to another version later (see `MLModel.resolve_source`)."""
        return False

    def find_shipped_code(self, settings: ModelSettings) -> ShippedCode | None:
        """Return the Python code in the model's local folder, None if there is none. Blocks."""
        return None

    def list_imports(self, settings: ModelSettings) -> list[str]:
        """Return modules that a process imports, in this order, before the runtime's. Blocks.

        For libraries that load faster, or load less, before others. An error is ignored, because
        loading the model reports it.
        """
        return []

    def list_template_imports(self, settings: ModelSettings) -> list[str]:
        """Return modules that workers share: of the runtime and the model's libraries. Blocks.

        A template process imports them after those of `list_imports`, before workers are forked
        from it. No module may be user code. One that cannot be imported is skipped.
        """
        return []

    def read_environment(self, settings: ModelSettings) -> EnvironmentFiles:
        """Return what the model's files say about its environment; fetch them if needed. Blocks.

        Raises:
            MLServerError: the model cannot be fetched, or it declares no requirements.
        """
        raise MLServerError(
            f"Model {settings.name}: runtime '{self.package}' builds no environments"
        )

    def install_command(self, package: str) -> str | None:
        """Return the command that installs a package of the runtime's extras, None for others."""
        return None


NO_HOOKS = RuntimeHooks()


def find_hooks(implementation: str) -> RuntimeHooks:
    """Return the hooks of the runtime that an import path belongs to.

    `NO_HOOKS` if its package declares none or cannot be imported; loading the model reports the
    import error.
    """
    return _load_hooks(re.split("[.:]", implementation, maxsplit=1)[0])


@lru_cache(maxsize=64)
def _load_hooks(package: str) -> RuntimeHooks:
    if package not in list_runtimes():
        return NO_HOOKS
    for entry_point in entry_points(group=GROUP, name=package):
        return _import_hooks(entry_point)
    return NO_HOOKS


def _import_hooks(entry_point: EntryPoint) -> RuntimeHooks:
    try:
        hooks: RuntimeHooks = entry_point.load()()
    except (ImportError, AttributeError) as error:
        logger.warning(
            "Runtime '%s': entry point '%s' in the group '%s' cannot be imported: %s",
            entry_point.name,
            entry_point.value,
            GROUP,
            error,
        )
        return NO_HOOKS
    hooks.package = entry_point.name
    return hooks


@lru_cache(maxsize=1)
def list_hooks() -> tuple[RuntimeHooks, ...]:
    """Return the hooks of all installed runtimes that declare them, in the order of their names."""
    return tuple(map(_load_hooks, sorted(list_runtimes())))


def list_implementations() -> list[str]:
    """Return the import paths of all installed runtimes that declare hooks."""
    return [path for hooks in list_hooks() for path in hooks.implementations]
