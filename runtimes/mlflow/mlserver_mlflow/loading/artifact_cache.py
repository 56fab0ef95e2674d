"""The cache of fetched models: one folder per model id, whole and checked, reused by later starts and other workers.

    KEY/model/          the model as MLflow wrote it
    KEY/manifest.json   its files with their sizes and hashes
    addresses/*.json    what each address meant the last time
    links/              see `aliases`

KEY is the id that MLflow gave the model, and the beginning of the hash of its `MLmodel` file.
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
# MLflow notes in this file through which name a model was fetched; the model is the same through any.
REGISTERED_AS = "registered_model_meta"
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Cache:
    """Fetched models below one folder. All methods block; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def at(cls, folder: str | None = None) -> Cache:
        """The cache in a folder; None = the one that the environment names, else the user's."""
        chosen = folder or os.environ.get(VARIABLE)
        root = Path(os.path.expanduser(chosen)) if chosen else _users()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MLServerError(
                f"The folder for fetched models cannot be made: {error.strerror}", 500
            ) from None
        return cls(root)

    @property
    def links(self) -> Path:
        """The folder of links to models whose own paths MLflow misreads (see `aliases`)."""
        return self._root / "links"

    def folder(self, key: str) -> str:
        return str(self._root / key / "model")

    def fetch(self, address: str) -> str:
        """Have the model of an address here, whole. Returns its key; raises what MLflow raises."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(address)
        key = self._key(repository)
        with self._locked(key):
            if not self._is_whole(key):
                self._download(address, key)
        return key

    def _key(self, repository: Any) -> str:
        with tempfile.TemporaryDirectory(dir=self._root, prefix="asking-") as folder:
            text = Path(repository.download_artifacts(MLMODEL, folder)).read_bytes()
        return key_of(text)

    def _download(self, address: str, key: str) -> None:
        from mlflow.artifacts import download_artifacts

        place = self._root / key
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        logger.info("Fetching %s", address)
        part = place / "part"
        part.mkdir()
        came = Path(download_artifacts(artifact_uri=address, dst_path=str(part)))
        (came / REGISTERED_AS).unlink(missing_ok=True)
        if key_of((came / MLMODEL).read_bytes()) != key:
            raise OSError(f"{address} changed while it was fetched")
        os.rename(came, place / "model")
        shutil.rmtree(
            part, ignore_errors=True
        )  # what is left where a store fetches into a folder below
        _write(place / "manifest.json", manifest_of(place / "model"))

    def _is_whole(self, key: str) -> bool:
        """Whether the model is here, with every file as it was fetched."""
        place = self._root / key
        expected = _read(place / "manifest.json")
        if expected is None:
            return False
        if expected == manifest_of(place / "model"):
            return True
        logger.warning("The fetched model %s is damaged", key)
        return False

    # -- what addresses meant --

    def remember(self, place: str, key: str, address: str, version: str | None) -> None:
        """Note which model an address led to."""
        folder = self._root / "addresses"
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(folder / _file(place), {"key": key, "address": address, "version": version})

    def recall(self, place: str) -> dict[str, Any] | None:
        """Folder, address and version of the model that an address led to, if that is here, whole; else None."""
        known = _read(self._root / "addresses" / _file(place))
        if known is None:
            return None
        with self._locked(known["key"]):
            whole = self._is_whole(known["key"])
        return {**known, "folder": self.folder(known["key"])} if whole else None

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        with open(self._root / f"{key}.lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def key_of(mlmodel: bytes) -> str:
    """The key of the model that this `MLmodel` file describes."""
    found = re.search(rb"^(?:model_id|model_uuid):\s*['\"]?([^'\"\s]+)", mlmodel, re.MULTILINE)
    name = found[1].decode("utf-8", "replace") if found else ""
    digest = hashlib.sha256(mlmodel).hexdigest()
    return f"{name}-{digest[:16]}" if _ID.fullmatch(name) else f"model-{digest}"


def manifest_of(folder: Path) -> dict[str, list[Any]]:
    """Relative path -> size and SHA-256, for every file."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest]
    return found


def _users() -> Path:
    """The user's own cache; where there is no home to write to, a folder among the temporary ones that nobody else owns."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    nearest = next((path for path in [home, *home.parents] if path.exists()), home)
    if os.access(nearest, os.W_OK):
        return home / "mlserver" / "models"
    folder = Path(tempfile.gettempdir()) / f"mlserver-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise MLServerError(
            f"No folder for fetched models: set {VARIABLE} to one that can be written", 500
        )
    return folder


def _file(place: str) -> str:
    return f"{hashlib.sha256(place.encode()).hexdigest()}.json"


def _read(path: Path) -> Any:
    """A JSON file; None if there is none, or none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Any) -> None:
    """Write a JSON file in one step: readers see it whole or not at all."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    part.write_text(json.dumps(value), encoding="utf-8")
    os.replace(part, path)
