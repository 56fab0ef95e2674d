"""Cache of downloaded models: one folder per model id, verified on use, shared by all processes.

    KEY/model/          the model as MLflow wrote it
    KEY/manifest.json   its files with their sizes and hashes
    addresses/*.json    the model that each address led to last
    links/              see `path_aliases`

KEY is MLflow's id of the model and the first digits of the hash of its `MLmodel` file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlserver.errors import MLServerError
from mlserver.logging import get_logger

logger = get_logger()

VARIABLE = "MLSERVER_MLFLOW_CACHE"
MLMODEL = "MLmodel"
# MLflow records in this file the name that a model was downloaded by; the model is the same.
REGISTERED_MODEL_META = "registered_model_meta"
_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class ArtifactCache:
    """Downloaded models below one folder. All methods block; several processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def open(cls, folder: str | None = None) -> ArtifactCache:
        """Return the cache in a folder; None = that of the environment variable, else the user's.

        Raises:
            MLServerError: the folder cannot be created.
        """
        configured = folder or os.environ.get(VARIABLE)
        root = Path(os.path.expanduser(configured)) if configured else _get_user_folder()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            text = f"Cannot create the model cache {root} (set {VARIABLE}): {error.strerror}"
            raise MLServerError(text, 500) from None
        return cls(root)

    @property
    def links(self) -> Path:
        """The folder of links to models whose own paths MLflow misreads (see `path_aliases`)."""
        return self._root / "links"

    def folder(self, key: str) -> str:
        """Return the folder of a cached model."""
        return str(self._root / key / "model")

    def fetch(self, address: str) -> str:
        """Download the model of an address unless it is cached and intact; return its key.

        Raises the exceptions of MLflow's artifact repositories.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(address)
        key = self._read_key(repository)
        with self._lock(key):
            if not self._is_intact(key):
                self._download(address, key)
        return key

    def _read_key(self, repository: Any) -> str:
        with tempfile.TemporaryDirectory(dir=self._root, prefix="key-") as folder:
            content = Path(repository.download_artifacts(MLMODEL, folder)).read_bytes()
        return get_cache_key(content)

    def _download(self, address: str, key: str) -> None:
        from mlflow.artifacts import download_artifacts

        entry = self._root / key
        shutil.rmtree(entry, ignore_errors=True)
        entry.mkdir(mode=0o700)
        logger.info("Downloading %s", address)
        partial = entry / "part"
        partial.mkdir()
        downloaded = Path(download_artifacts(artifact_uri=address, dst_path=str(partial)))
        (downloaded / REGISTERED_MODEL_META).unlink(missing_ok=True)
        if get_cache_key((downloaded / MLMODEL).read_bytes()) != key:
            raise OSError(f"{address} changed during the download")
        os.rename(downloaded, entry / "model")
        # Some stores download into a folder below `part`, which then remains.
        shutil.rmtree(partial, ignore_errors=True)
        _write_json(entry / "manifest.json", compute_manifest(entry / "model"))

    def _is_intact(self, key: str) -> bool:
        """Whether the model is cached and every file equals the downloaded one."""
        entry = self._root / key
        expected = _read_json(entry / "manifest.json")
        if expected is None:
            return False
        if expected == compute_manifest(entry / "model"):
            return True
        logger.warning("The cached model %s is damaged and will be downloaded again", key)
        return False

    # -- resolved addresses --

    def record(self, lookup: str, key: str, address: str, version: str | None) -> None:
        """Store which model an address led to.

        Args:
            lookup: The address together with the registry that resolved it.
            address: The address with a fixed version.
        """
        folder = self._root / "addresses"
        folder.mkdir(mode=0o700, exist_ok=True)
        entry = {"key": key, "address": address, "version": version}
        _write_json(folder / _get_file_name(lookup), entry)

    def find(self, lookup: str) -> dict[str, Any] | None:
        """Return `folder`, `address` and `version` stored by `record`; None if not intact."""
        entry = _read_json(self._root / "addresses" / _get_file_name(lookup))
        if entry is None:
            return None
        with self._lock(entry["key"]):
            is_intact = self._is_intact(entry["key"])
        return {**entry, "folder": self.folder(entry["key"])} if is_intact else None

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        with open(self._root / f"{key}.lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def get_cache_key(mlmodel: bytes) -> str:
    """Return the key of the model that an `MLmodel` file describes."""
    match = re.search(rb"^(?:model_id|model_uuid):\s*['\"]?([^'\"\s]+)", mlmodel, re.MULTILINE)
    model_id = match[1].decode("utf-8", "replace") if match else ""
    digest = hashlib.sha256(mlmodel).hexdigest()
    return f"{model_id}-{digest[:16]}" if _MODEL_ID.fullmatch(model_id) else f"model-{digest}"


def compute_manifest(folder: Path) -> dict[str, list[Any]]:
    """Return relative path -> [size, SHA-256] of every file."""
    manifest: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            manifest[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest]
    return manifest


def _get_user_folder() -> Path:
    """Return the user's cache folder, or one below the temporary folder if home is read-only.

    The temporary one must belong to the user: another user could plant models in it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    nearest = next((path for path in [home, *home.parents] if path.exists()), home)
    if os.access(nearest, os.W_OK):
        return home / "mlserver" / "models"
    folder = Path(tempfile.gettempdir()) / f"mlserver-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise MLServerError(f"No folder for the model cache: set {VARIABLE} to a writable one", 500)
    return folder


def _get_file_name(lookup: str) -> str:
    return f"{hashlib.sha256(lookup.encode()).hexdigest()}.json"


def _read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or invalid."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value), encoding="utf-8")
    os.replace(partial, path)
