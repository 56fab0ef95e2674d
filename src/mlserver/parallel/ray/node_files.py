"""The files of a replica's model on its node: those at the model's path, or a copy of them.

A node that has no files at the path, or others, receives a copy through the directory. Ray's
`working_dir` is not used for it: Ray deletes the package of an environment when no replica lives,
and skips what `.gitignore` names.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import MLServerError
from ...locations import is_below, locate
from ...logging import get_logger
from ...settings import ModelSettings, Settings
from .model_files import ModelFiles, compute_digest, relocate, unpack

logger = get_logger()

PREFIX = "mlserver-ray-"
# Seconds to wait for a server that has the files.
WAIT = 120.0
INTERVAL = 0.2
CURE = (
    "put it on a volume that all nodes mount at this path, use an address such as models:/ or "
    "s3://, or raise 'ray.upload_limit'"
)

Call = Callable[..., Any]


class NodeFiles:
    """Finds or copies the files of a model. All methods block.

    Args:
        call: Calls a method of the directory.
        application: Name of the Serve application.
        files: Values of `ModelFiles` of each file or folder.
    """

    def __init__(self, call: Call, application: str, files: Sequence[Sequence[Any]]) -> None:
        self._call = call
        self._application = application
        self._files = [ModelFiles(*values) for values in files]
        self._folder: str | None = None

    def provide(self, model: ModelSettings) -> tuple[ModelSettings, dict[str, str]]:
        """Return the model's settings for this node, and the copies: path -> path of the copy.

        Raises:
            MLServerError: the files are not here, and cannot be copied.
        """
        copies = {}
        for number, files in enumerate(self._files):
            state = _compare(files)
            if state:
                copies[files.path] = self._copy(model, files, state, str(number))
        return (relocate(model, copies) if copies else model), copies

    def remove(self) -> None:
        """Delete the copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, model: ModelSettings, files: ModelFiles, state: str, name: str) -> str:
        started = time.monotonic()
        count = self._wait_for_package(model, files, state)
        if self._folder is None:
            _remove_leftovers()
            self._folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
        folder = os.path.join(self._folder, name)
        unpack(self._read_parts(files.digest, count), folder)
        os.makedirs(folder, exist_ok=True)  # also if the model's folder is empty
        path = folder if files.is_folder else os.path.join(folder, os.path.basename(files.path))
        if compute_digest(path) != files.digest:
            raise MLServerError(f"Model {model.name}: the copy of {files.path} is damaged", 500)
        seconds = time.monotonic() - started
        logger.info("Model '%s': copied %s to this node (%.2f s)", model.name, files.path, seconds)
        return path

    def _wait_for_package(self, model: ModelSettings, files: ModelFiles, state: str) -> int:
        """Return the number of parts, once a server has sent them."""
        end = time.monotonic() + WAIT
        while True:
            answer = self._call("request_files", self._application, files.digest)
            if answer["parts"] is not None:
                return int(answer["parts"])
            reason = answer["error"]
            if reason is None and time.monotonic() > end:
                reason = f"no server that has it answered within {WAIT:g} s"
            if reason is not None:
                node = socket.gethostname()
                raise MLServerError(
                    f"Model {model.name}: {files.path} {state} node '{node}', and cannot be copied"
                    f" to it: {reason}: {CURE}",
                    500,
                )
            time.sleep(INTERVAL)

    def _read_parts(self, digest: str, count: int) -> Iterator[bytes]:
        for number in range(count):
            yield self._call("read_part", digest, number)


def _compare(files: ModelFiles) -> str:
    """Return "" if the files are here, else in which way they are not."""
    try:
        if not os.path.exists(files.path):
            return "does not exist on"
        return "" if compute_digest(files.path) == files.digest else "has other content on"
    except (OSError, MLServerError):
        return "cannot be read on"


def _remove_leftovers() -> None:
    """Delete the copies of replicas that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            shutil.rmtree(folder, ignore_errors=True)


def allow_copies(settings: Settings, copies: dict[str, str]) -> Settings:
    """Return the server's settings with the copies of allowed files allowed."""
    sources = settings.allowed_model_sources
    if sources is None and settings.production:
        sources = [settings.model_repository_root]
    changes: dict[str, list[str]] = {}
    for name, entries in (
        ("allowed_model_sources", sources),
        ("trusted_models", settings.trusted_models),
    ):
        folders = [folder for folder in map(locate, entries or ()) if folder is not None]
        added = [copy for path, copy in copies.items() if _is_below_any(path, folders)]
        if added:
            changes[name] = [*(entries or ()), *added]
    return settings.model_copy(update=changes)


def _is_below_any(path: str, folders: list[str]) -> bool:
    return any(is_below(path, folder) for folder in folders)
