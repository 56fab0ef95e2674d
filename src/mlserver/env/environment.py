"""The Python environments that models bring: found or unpacked, checked, and made into the start of a worker.

A packed environment is unpacked once per content, into `environments_dir`; it stays there for the next start.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import MLServerError
from ..logging import get_logger
from ..settings import ModelSettings
from ..utils import to_absolute_path
from . import builder

logger = get_logger()

MAX_FILES = 1_000_000
MAX_BYTES = 64 * 1024**3
CHECK_TIMEOUT = 120
_COMPLETE = ".mlserver-complete"
_BOOTSTRAP = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), "parallel", "worker", "bootstrap.py"
)
# What a packed virtual environment has in place of its interpreter: a link to the one it was made with.
_INTERPRETER = re.compile(r"(\./)?bin/python(\d+(\.\d+)?)?")
_hashes: dict[tuple[str, int, int], str] = {}


class EnvironmentNotFound(MLServerError):
    """A model's environment is not there, or cannot run a worker."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Environment '{name}' cannot be used: {reason}", 500)


@dataclass(frozen=True)
class Environment:
    """A folder with a Python environment.

    Attributes:
        key: The same for the same environment.
        folder: Where it lies.
        name: What the model's settings call it.
        source: Where the model's address pointed to when this was built for it; None = it was not built for a model.
    """

    key: str
    folder: str
    name: str = field(compare=False)
    source: str | None = field(default=None, compare=False)

    @property
    def python(self) -> str:
        return os.path.join(self.folder, "bin", "python")

    def command(self) -> list[str]:
        """Arguments that start a worker in it; the number of its end of the channel comes last."""
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return [self.python, _BOOTSTRAP, version, *installed_paths()]

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment variables of a process in it, from those of this one."""
        kept = {name: value for name, value in base.items() if name != "PYTHONHOME"}
        path = os.path.dirname(self.python)
        return kept | {
            "VIRTUAL_ENV": self.folder,
            "PATH": os.pathsep.join([path, kept.get("PATH", os.defpath)]),
        }

    def check(self) -> None:
        """Raises `EnvironmentNotFound`, with the reason, if a worker cannot run in it."""
        if not os.path.isfile(self.python):
            raise EnvironmentNotFound(self.name, "it has no bin/python")
        try:
            done = subprocess.run(
                [*self.command(), "check"],
                env=self.variables(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHECK_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvironmentNotFound(self.name, f"its bin/python does not run: {error}") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [
                f"its bin/python ended with {done.returncode}"
            ]
            raise EnvironmentNotFound(self.name, f"{lines[-1]} (install mlserver in it)")


def own_paths() -> list[str]:
    """What this process searches before the standard library: folders of models, and what PYTHONPATH names."""
    return [os.path.abspath(entry) for entry in sys.path[: _standard_library()]]


def installed_paths() -> list[str]:
    """What this process searches after the standard library: its installed packages."""
    prefix = os.path.dirname(os.__file__)
    return [entry for entry in sys.path[_standard_library() :] if _is_installed(entry, prefix)]


def _standard_library() -> int:
    """Where the standard library begins in the search path."""
    folder = os.path.dirname(os.__file__)
    places = [at for at, entry in enumerate(sys.path) if entry == folder or entry.endswith(".zip")]
    return min(places, default=0)


def _is_installed(entry: str, standard_library: str) -> bool:
    return os.path.isdir(entry) and entry not in (
        standard_library,
        os.path.join(standard_library, "lib-dynload"),
    )


# -- finding --


def find_environment(settings: ModelSettings, environments_dir: str) -> Environment | None:
    """The environment that a model asks for, unpacked if need be; None = the server's own. Blocks.

    Raises:
        EnvironmentNotFound: it is not there, or cannot be unpacked.
    """
    parameters = settings.parameters
    if parameters is None:
        return None
    if parameters.environment_tarball:
        tarball = _path(settings, parameters.environment_tarball)
        if not os.path.isfile(tarball):
            raise EnvironmentNotFound(parameters.environment_tarball, "there is no such file")
        return unpack(tarball, environments_dir, parameters.environment_tarball)
    if parameters.environment_path:
        folder = _path(settings, parameters.environment_path)
        if not os.path.isdir(folder):
            raise EnvironmentNotFound(parameters.environment_path, "there is no such folder")
        return Environment(
            compute_hash_of_string(os.path.realpath(folder)), folder, parameters.environment_path
        )
    recipe = builder.find_environment_spec(settings)
    return build(recipe, environments_dir) if recipe is not None else None


def build(recipe: builder.EnvironmentSpec, environments_dir: str) -> Environment:
    """Build what a model asks for, unless that was done before. Raises `building.BuildFailed`."""
    folder = os.path.join(os.path.abspath(environments_dir), f"{recipe.manager}-{recipe.key[:40]}")
    os.makedirs(environments_dir, exist_ok=True)
    with _locked(f"{folder}.lock"):
        marker = os.path.join(folder, _COMPLETE)
        if not os.path.exists(marker):
            builder.build(recipe, folder)
            with open(marker, "w", encoding="utf-8"):
                pass
    return Environment(recipe.key, folder, f"of model {recipe.model}", recipe.source)


def _path(settings: ModelSettings, path: str) -> str:
    return os.path.abspath(to_absolute_path(settings, os.path.expandvars(os.path.expanduser(path))))


def compute_hash_of_string(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def compute_hash_of_file(path: str) -> str:
    """The SHA-256 of a file's content; computed again only if its size or time has changed."""
    stat = os.stat(path)
    key = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with open(path, "rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


# -- unpacking --


def unpack(tarball: str, environments_dir: str, name: str) -> Environment:
    """Unpack what conda-pack or venv-pack made, unless that was done before.

    Raises:
        EnvironmentNotFound: it is no archive, or holds what an environment does not need: devices, or anything that would
            lie or lead outside of its folder.
    """
    key = compute_hash_of_file(tarball)
    folder = os.path.join(os.path.abspath(environments_dir), key)
    os.makedirs(environments_dir, exist_ok=True)
    with _locked(f"{folder}.lock"):
        marker = os.path.join(folder, _COMPLETE)
        if not os.path.exists(marker):
            # What is there without the marker was left by somebody who did not finish.
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("Unpacking environment '%s'", name)
            try:
                _extract(tarball, folder)
                _relocate(folder)
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise EnvironmentNotFound(name, str(error)) from None
            with open(marker, "w", encoding="utf-8"):
                pass
    return Environment(key, folder, name)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a lock that other threads and other servers respect."""
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _extract(tarball: str, folder: str) -> None:
    os.makedirs(folder)
    files = size = 0
    interpreters: list[tuple[str, str]] = []
    with tarfile.open(tarball, "r:*") as archive:
        for member in archive:
            files, size = files + 1, size + member.size
            if files > MAX_FILES or size > MAX_BYTES:
                raise ValueError(
                    f"it holds more than {MAX_FILES} files or {MAX_BYTES // 1024**3} GiB"
                )
            if (
                member.issym()
                and os.path.isabs(member.linkname)
                and _INTERPRETER.fullmatch(member.name)
            ):
                interpreters.append((member.name, member.linkname))
            else:
                archive.extract(member, folder, filter="data")
    for name, target in interpreters:
        # The only link that may lead out, made by us: to an interpreter of this machine.
        if _INTERPRETER.fullmatch(f"bin/{os.path.basename(target)}") and os.path.isfile(target):
            os.makedirs(os.path.join(folder, "bin"), exist_ok=True)
            os.symlink(target, os.path.join(folder, name))


def _relocate(folder: str) -> None:
    """Let an environment of conda-pack write its new place into its files, with the script that it brings."""
    script = os.path.join(folder, "bin", "conda-unpack")
    if os.path.isfile(script):
        python = os.path.join(folder, "bin", "python")
        done = subprocess.run(
            [python, script], capture_output=True, text=True, timeout=CHECK_TIMEOUT, check=False
        )
        if done.returncode:
            raise ValueError(f"its conda-unpack failed: {done.stderr.strip()[-500:]}")
