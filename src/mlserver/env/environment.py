"""Python environments of models: finds, unpacks and checks them, and returns a worker's command.

A packed environment is unpacked once per content into `environments_dir` and reused after a
restart.
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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ..errors import MLServerError
from ..logging import get_logger
from ..settings import ModelSettings
from ..utils import to_absolute_path
from . import builder
from .build_limit import NO_LIMIT, BuildLimit

logger = get_logger()

MAX_FILES = 1_000_000
MAX_BYTES = 64 * 1024**3
CHECK_TIMEOUT = 120.0  # seconds for a process that runs in the environment
LOCK_INTERVAL = 0.1  # seconds between two attempts to lock an environment
_COMPLETE = ".mlserver-complete"
_BOOTSTRAP = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), "parallel", "worker", "bootstrap.py"
)
# A packed virtual environment contains a link to the interpreter that it was created with.
_INTERPRETER = re.compile(r"(\./)?bin/python(\d+(\.\d+)?)?")
_hashes: dict[tuple[str, int, int], str] = {}


class EnvironmentNotFound(MLServerError):
    """A model's environment does not exist or cannot run a worker."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Environment '{name}' cannot be used: {reason}", 500)


@dataclass(frozen=True)
class Environment:
    """A folder with a Python environment.

    Attributes:
        key: Equal for equal environments.
        folder: Absolute path.
        name: Its name in messages, from the model's settings.
        source: Address, with an explicit version, of the model that it was built for; None = it
            was not built from a model in a registry.
    """

    key: str
    folder: str
    name: str = field(compare=False)
    source: str | None = field(default=None, compare=False)

    @property
    def python(self) -> str:
        return os.path.join(self.folder, "bin", "python")

    def command(self, entry: str) -> list[str]:
        """Return the command of a process; the file descriptor of its connection is appended.

        Args:
            entry: `worker` or `template`.
        """
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return [self.python, _BOOTSTRAP, version, *installed_paths(), entry]

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables of a process in it.

        Args:
            base: The variables to start from.
        """
        kept = {name: value for name, value in base.items() if name != "PYTHONHOME"}
        path = os.path.dirname(self.python)
        return kept | {
            "VIRTUAL_ENV": self.folder,
            "PATH": os.pathsep.join([path, kept.get("PATH", os.defpath)]),
        }

    def check(self, limit: BuildLimit = NO_LIMIT) -> None:
        """Raise `EnvironmentNotFound`, with the reason, if a worker cannot run in it. Blocks."""
        if not os.path.isfile(self.python):
            raise EnvironmentNotFound(self.name, "it has no bin/python")
        try:
            code, errors = _run([*self.command("check"), "-"], limit, self.variables(os.environ))
        except OSError as error:
            raise EnvironmentNotFound(self.name, f"its bin/python does not run: {error}") from None
        if code:
            lines = errors.splitlines() or [f"its bin/python exited with {code}"]
            raise EnvironmentNotFound(self.name, f"{lines[-1]} (install mlserver in it)")


def own_paths() -> list[str]:
    """Return the search path before the standard library: folders of models and PYTHONPATH."""
    return [os.path.abspath(entry) for entry in sys.path[: _find_standard_library()]]


def installed_paths() -> list[str]:
    """Return the search path after the standard library: the installed packages."""
    prefix = os.path.dirname(os.__file__)
    entries = sys.path[_find_standard_library() :]
    return [entry for entry in entries if _is_installed(entry, prefix)]


def _find_standard_library() -> int:
    """Return the index of the standard library in the search path."""
    folder = os.path.dirname(os.__file__)
    for index, entry in enumerate(sys.path):
        if entry == folder or entry.endswith(".zip"):
            return index
    return 0


def _is_installed(entry: str, standard_library: str) -> bool:
    return os.path.isdir(entry) and entry not in (
        standard_library,
        os.path.join(standard_library, "lib-dynload"),
    )


# -- finding --


def find_environment(
    settings: ModelSettings, environments_dir: str, limit: BuildLimit = NO_LIMIT
) -> Environment | None:
    """Return the environment in a model's settings, None for the server's own. Blocks.

    Raises:
        EnvironmentNotFound: it does not exist or cannot be unpacked.
        EnvironmentBuildError: it cannot be built.
        MLServerError: `limit` has ended the search.
    """
    parameters = settings.parameters
    if parameters is None:
        return None
    if parameters.environment_tarball:
        tarball = _resolve_path(settings, parameters.environment_tarball)
        if not os.path.isfile(tarball):
            raise EnvironmentNotFound(parameters.environment_tarball, "there is no such file")
        return unpack(tarball, environments_dir, parameters.environment_tarball, limit)
    if parameters.environment_path:
        folder = _resolve_path(settings, parameters.environment_path)
        if not os.path.isdir(folder):
            raise EnvironmentNotFound(parameters.environment_path, "there is no such folder")
        return Environment(
            compute_hash_of_string(os.path.realpath(folder)), folder, parameters.environment_path
        )
    spec = builder.find_environment_spec(settings, limit)
    return build(spec, environments_dir, limit) if spec is not None else None


def build(
    spec: builder.EnvironmentSpec, environments_dir: str, limit: BuildLimit = NO_LIMIT
) -> Environment:
    """Return the environment of a spec, building it unless it exists.

    Raises:
        EnvironmentBuildError: an installer failed.
    """
    folder = os.path.join(os.path.abspath(environments_dir), f"{spec.manager}-{spec.key[:40]}")
    name = f"of model {spec.model}"
    with _locked(folder, name, limit) as is_complete:
        if not is_complete:
            builder.build(spec, folder, limit)
    return Environment(spec.key, folder, name, spec.source)


def _resolve_path(settings: ModelSettings, path: str) -> str:
    return os.path.abspath(to_absolute_path(settings, os.path.expandvars(os.path.expanduser(path))))


def compute_hash_of_string(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def compute_hash_of_file(path: str) -> str:
    """Return the SHA-256 of a file, cached by its size and modification time."""
    stat = os.stat(path)
    key = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with open(path, "rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


# -- unpacking --


def unpack(
    tarball: str, environments_dir: str, name: str, limit: BuildLimit = NO_LIMIT
) -> Environment:
    """Return the environment in an archive of conda-pack or venv-pack, unpacked once.

    Raises:
        EnvironmentNotFound: it is not an archive, or contains a device, or a path or link that
            leads out of its folder.
    """
    try:
        key = compute_hash_of_file(tarball)
    except OSError as error:
        raise EnvironmentNotFound(name, f"its file cannot be read: {error.strerror}") from None
    folder = os.path.join(os.path.abspath(environments_dir), key)
    with _locked(folder, name, limit) as is_complete:
        if not is_complete:
            # A folder without the marker was left by an interrupted process.
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("Unpacking environment '%s'", name)
            try:
                _extract(tarball, folder, limit)
                _relocate(folder, limit)
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise EnvironmentNotFound(name, str(error)) from None
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return Environment(key, folder, name)


@contextmanager
def _locked(folder: str, name: str, limit: BuildLimit) -> Iterator[bool]:
    """Hold the lock of an environment's folder, shared with other threads and other servers.

    Yields whether the environment is complete, and marks it so at the end of the block.

    Raises:
        EnvironmentNotFound: files cannot be written beside the folder.
    """
    marker = os.path.join(folder, _COMPLETE)
    with ExitStack() as files:
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            lock = files.enter_context(open(f"{folder}.lock", "w", encoding="utf-8"))
            _wait_for_lock(lock.fileno(), limit)
        except OSError as error:
            raise _cannot_write(name, error) from None
        is_complete = os.path.exists(marker)
        yield is_complete
        if not is_complete:
            try:
                files.enter_context(open(marker, "w", encoding="utf-8"))
            except OSError as error:
                raise _cannot_write(name, error) from None


def _wait_for_lock(descriptor: int, limit: BuildLimit) -> None:
    while True:
        limit.check()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(LOCK_INTERVAL)


def _cannot_write(name: str, error: OSError) -> EnvironmentNotFound:
    reason = "the folder of the setting 'environments_dir': expected one that can be written, "
    return EnvironmentNotFound(name, f"{reason}received '{error.strerror}'")


def _extract(tarball: str, folder: str, limit: BuildLimit) -> None:
    os.makedirs(folder)
    files = size = 0
    interpreters: list[tuple[str, str]] = []
    with tarfile.open(tarball, "r:*") as archive:
        for member in archive:
            limit.check()
            files, size = files + 1, size + member.size
            if files > MAX_FILES or size > MAX_BYTES:
                raise ValueError(
                    f"it holds more than {MAX_FILES} files or {MAX_BYTES // 1024**3} GiB"
                )
            is_absolute_link = member.issym() and os.path.isabs(member.linkname)
            if is_absolute_link and _INTERPRETER.fullmatch(member.name):
                interpreters.append((member.name, member.linkname))
            else:
                archive.extract(member, folder, filter="data")
    for name, target in interpreters:
        # The only link out of the folder: created here, to an interpreter of this machine.
        if _INTERPRETER.fullmatch(f"bin/{os.path.basename(target)}") and os.path.isfile(target):
            os.makedirs(os.path.join(folder, "bin"), exist_ok=True)
            os.symlink(target, os.path.join(folder, name))


def _relocate(folder: str, limit: BuildLimit) -> None:
    """Run the environment's `conda-unpack`, which writes its new path into its files."""
    script = os.path.join(folder, "bin", "conda-unpack")
    if os.path.isfile(script):
        python = os.path.join(folder, "bin", "python")
        code, errors = _run([python, script], limit)
        if code:
            raise ValueError(f"its conda-unpack failed: {errors[-500:]}")


def _run(
    command: Sequence[str], limit: BuildLimit, variables: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program of an environment; return its exit code, and what it wrote to stderr.

    It is killed after `CHECK_TIMEOUT` seconds.

    Raises:
        OSError: it cannot be started.
        MLServerError: `limit` has ended the search.
    """
    process = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with limit.watch(process, CHECK_TIMEOUT):
        _, errors = process.communicate()
    return process.returncode, errors.strip()
