"""What may run in `production`: which runtimes, from where, and no model whose files are code unless it is trusted.

Models are code: a pickle runs whatever its author wanted as soon as it is read. Everything here is off, and every model
allowed, unless the settings say otherwise.
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
    """The settings do not let this model run; the text names the one that decides."""

    def __init__(self, name: str, msg: str) -> None:
        super().__init__(f"Model {name} is not allowed to run here: {msg}", 403)


class CodePolicy:
    """The rules of one server."""

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
        """Before any of a model's code is imported. Raises `CodeNotAllowed`."""
        if self._production or self._runtimes is not None:
            runtimes = list_implementations() if self._runtimes is None else self._runtimes
            self._check_runtime(model, runtimes)
        if self._sources is not None:
            parameters = model.parameters
            given = (parameters.uri, *_environment(parameters)) if parameters else ()
            for place in filter(None, given):
                self._check_source(model, place, self._sources)

    def check_files(self, name: str, folder: str, code: Iterable[str]) -> None:
        """Before a runtime reads a model's files.

        Args:
            code: Which of the model's parts are code, as its runtime knows them.

        Raises:
            Untrusted: there are some, and the model is not among the trusted.
        """
        found = list(code) if self._production else []
        if found and not self._is_trusted(folder):
            raise CodeNotAllowed(
                name,
                f"reading it runs code ({', '.join(found[:3])}); see the setting 'trusted_models'",
            )

    @property
    def looks_into_files(self) -> bool:
        """Whether runtimes must call `check_files`."""
        return self._production

    def _check_runtime(self, model: ModelSettings, allowed: list[str]) -> None:
        path = model.implementation_.replace(":", ".")
        if not any(path == one or (one.endswith(".") and path.startswith(one)) for one in allowed):
            raise CodeNotAllowed(
                model.name, f"its runtime '{path}' is not among the setting 'allowed_runtimes'"
            )
        # A file of the runtime's name beside the model would be imported in its place.
        head = path.partition(".")[0]
        for folder in {model.folder or ".", self._repository}:
            if any(entry == head or entry.startswith(f"{head}.") for entry in _entries(folder)):
                raise CodeNotAllowed(
                    model.name, f"its folder has a '{head}' of its own (setting 'allowed_runtimes')"
                )

    def _check_source(self, model: ModelSettings, place: str, allowed: list[str]) -> None:
        path = locate(place, model.folder)
        if path is not None:
            inside = any(is_below(path, one) for one in map(locate, allowed) if one is not None)
        else:
            inside = ".." not in unquote(place).split("/") and any(
                _starts_with(place, one) for one in allowed
            )
        if not inside:
            raise CodeNotAllowed(
                model.name,
                "it comes from a place that is not among the setting 'allowed_model_sources'",
            )

    def _is_trusted(self, folder: str) -> bool:
        if any(is_below(folder, one) for one in self._trusted if not one.startswith(_DIGEST)):
            return True
        digests = {one.lower() for one in self._trusted if one.startswith(_DIGEST)}
        return bool(digests) and digest_of(folder) in digests


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _environment(parameters: ModelParameters) -> Iterable[str]:
    """The paths of an environment, with `~` and variables as they are when it is unpacked."""
    given = (parameters.environment_path, parameters.environment_tarball)
    return [os.path.expandvars(os.path.expanduser(path)) for path in given if path]


def _starts_with(address: str, beginning: str) -> bool:
    if not is_address(beginning) or not address.startswith(beginning):
        return False
    return beginning.endswith("/") or address[len(beginning) :][:1] in ("", "/", "@")


def digest_of(folder: str) -> str:
    """A digest over the names and contents of all files below a folder: `sha256:...`."""
    whole = hashlib.sha256()
    for path in sorted(_files(folder)):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(
            f"{os.path.relpath(path, folder)}\0{content}\n".encode(errors="surrogateescape")
        )
    return _DIGEST + whole.hexdigest()


def _files(folder: str) -> Iterable[str]:
    for root, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(root, name) for name in names)


_here = CodePolicy(Settings.model_construct())


def apply(settings: Settings) -> None:
    """Let these rules hold in this process, for whatever it loads from now on."""
    global _here  # as with the log, one process has one rule
    _here = CodePolicy(settings)


def rules() -> CodePolicy:
    """The rules of this process."""
    return _here
