"""Policy of the setting `production`: allowed runtimes, allowed sources, models with code.

Unpickling a model runs code of the model's author. Without `production` and the `allowed_*`
settings every model is allowed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from urllib.parse import unquote

from ..errors import MLServerError
from ..locations import is_address, is_below, locate
from ..runtime_hooks import list_implementations
from ..settings import ModelParameters, ModelSettings, Settings

_DIGEST = "sha256:"


class CodeNotAllowed(MLServerError):
    """The model is not allowed; the text names the deciding setting."""

    def __init__(self, name: str, msg: str) -> None:
        super().__init__(f"Model {name} is not allowed: {msg}", 403)


class CodePolicy:
    """The code policy of one server."""

    def __init__(self, settings: Settings) -> None:
        self._production = settings.production
        self._repository = settings.model_repository_root
        self._runtimes = settings.allowed_runtimes
        self._sources = settings.allowed_model_sources
        if settings.production:
            self._sources = (
                [settings.model_repository_root] if self._sources is None else self._sources
            )
        self._trusted = settings.trusted_models

    def check(self, model: ModelSettings) -> None:
        """Check a model's runtime and sources before any of its code is imported.

        Raises:
            CodeNotAllowed: the runtime or a source is not allowed.
        """
        if self._production or self._runtimes is not None:
            runtimes = list_implementations() if self._runtimes is None else self._runtimes
            self._check_runtime(model, runtimes)
        if self._sources is None or model.parameters is None:
            return
        locations = [model.parameters.uri, *_get_environment_paths(model.parameters)]
        for location in filter(None, locations):
            self._check_source(model, location, self._sources)

    def check_files(self, name: str, folder: str, code: Iterable[str]) -> None:
        """Check a model's files before its runtime reads them.

        Args:
            name: The model's name.
            code: Parts of the model that are code, as determined by its runtime.

        Raises:
            CodeNotAllowed: the model contains code and is not in `trusted_models`.
        """
        parts = list(code) if self._production else []
        if parts and not self._is_trusted(folder):
            raise CodeNotAllowed(
                name,
                f"loading it runs code ({', '.join(parts[:3])}); see the setting 'trusted_models'",
            )

    @property
    def checks_files(self) -> bool:
        """Whether runtimes must call `check_files`."""
        return self._production

    def _check_runtime(self, model: ModelSettings, allowed: list[str]) -> None:
        path = model.implementation_.replace(":", ".")
        if not any(_matches_import_path(path, entry) for entry in allowed):
            raise CodeNotAllowed(
                model.name, f"its runtime '{path}' is not in the setting 'allowed_runtimes'"
            )
        # A file beside the model with the name of the runtime's package would be imported instead.
        package = path.partition(".")[0]
        for folder in {model.folder or ".", self._repository}:
            if any(_provides_module(entry, package) for entry in _list_entries(folder)):
                raise CodeNotAllowed(
                    model.name,
                    f"its folder contains '{package}', which would replace the runtime"
                    " (setting 'allowed_runtimes')",
                )

    def _check_source(self, model: ModelSettings, location: str, allowed: list[str]) -> None:
        path = locate(location, model.folder)
        if path is not None:
            folders = [folder for folder in map(locate, allowed) if folder is not None]
            is_allowed = any(is_below(path, folder) for folder in folders)
        else:
            has_parent_segment = ".." in unquote(location).split("/")
            is_allowed = not has_parent_segment and any(
                _has_prefix(location, prefix) for prefix in allowed
            )
        if not is_allowed:
            raise CodeNotAllowed(
                model.name, "its source is not in the setting 'allowed_model_sources'"
            )

    def _is_trusted(self, folder: str) -> bool:
        digests = {entry.lower() for entry in self._trusted if entry.startswith(_DIGEST)}
        folders = [entry for entry in self._trusted if not entry.startswith(_DIGEST)]
        if any(is_below(folder, trusted) for trusted in folders):
            return True
        return bool(digests) and compute_digest(folder) in digests


def _matches_import_path(path: str, allowed: str) -> bool:
    """Return whether `allowed` is the path itself or, with a dot at its end, its package."""
    return path == allowed or (allowed.endswith(".") and path.startswith(allowed))


def _provides_module(filename: str, module: str) -> bool:
    return filename == module or filename.startswith(f"{module}.")


def _list_entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _get_environment_paths(parameters: ModelParameters) -> list[str]:
    """Return the paths of a model's environment, with `~` and variables expanded."""
    paths = (parameters.environment_path, parameters.environment_tarball)
    return [os.path.expandvars(os.path.expanduser(path)) for path in paths if path]


def _has_prefix(address: str, prefix: str) -> bool:
    if not is_address(prefix) or not address.startswith(prefix):
        return False
    return prefix.endswith("/") or address[len(prefix) :][:1] in ("", "/", "@")


def compute_digest(folder: str) -> str:
    """Return the digest of the names and contents of all files below a folder: `sha256:...`."""
    digest = hashlib.sha256()
    for path in sorted(_find_files(folder)):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(
            f"{os.path.relpath(path, folder)}\0{content}\n".encode(errors="surrogateescape")
        )
    return _DIGEST + digest.hexdigest()


def _find_files(folder: str) -> Iterable[str]:
    for root, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(root, name) for name in names)


_current = CodePolicy(Settings.model_construct())


def install_policy(settings: Settings) -> None:
    """Install the policy for this process."""
    global _current  # one policy per process, like logging
    _current = CodePolicy(settings)


def current_policy() -> CodePolicy:
    """Return the policy of this process."""
    return _current
