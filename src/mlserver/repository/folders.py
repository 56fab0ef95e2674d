"""Search of a folder tree for settings files and MLflow models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

SETTINGS_FILENAME = "model-settings.json"
MLFLOW_MODEL_FILENAME = "MLmodel"
# A V2 request of the model's author, beside its settings file.
SAMPLE_REQUEST_FILENAME = "sample-request.json"
# Depth to which MLflow models are served; settings files have no limit.
MAX_DEPTH = 10
# Folders of logged MLflow runs: a history of training, not models to serve.
TRACKING_STORES = frozenset({"mlruns", "mlartifacts"})
_INSTALLED = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class MLflowFolder:
    """A folder that holds an MLflow model.

    Attributes:
        path: Path as reached from the root.
        real: Path without links.
        depth: Number of folders below the root, 0 for the root itself.
        is_in_store: Whether it is part of a tracking store.
        owner: Nearest folder from the root that has a settings file, if any.
    """

    path: str
    real: str
    depth: int
    is_in_store: bool
    owner: str | None


@dataclass
class Contents:
    """Content of a folder tree, sorted by path."""

    settings_files: list[str] = field(default_factory=list)
    mlflow_models: list[MLflowFolder] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    path: str
    depth: int = 0
    is_in_store: bool = False
    owner: str | None = None
    is_link: bool = False
    # Below an MLflow model or among installed packages: MLflow models here are not served.
    is_part: bool = False


def is_version(name: str) -> bool:
    """Return whether a folder's name is a version number."""
    return _NUMBER.fullmatch(name) is not None


def find_contents(root: str, on_unreadable: Callable[[str], None]) -> Contents:
    """Search a folder tree, except hidden folders.

    - Links are followed last, so that a folder below the root has its own path.
    - Behind a link out of the root, the search is limited to its target and version folders in it.
    - Each folder is read once.

    Args:
        on_unreadable: Called with a message for each folder that cannot be read.
    """
    contents = Contents()
    for item in _walk(root, on_unreadable):
        if isinstance(item, MLflowFolder):
            contents.mlflow_models.append(item)
        elif os.path.basename(item) in TRACKING_STORES:
            contents.stores.append(item)
        else:
            contents.settings_files.append(item)
    contents.settings_files.sort(key=lambda file: os.path.dirname(file).split(os.sep))
    contents.mlflow_models.sort(key=lambda model: model.path.split(os.sep))
    return contents


def has_models(root: str) -> bool:
    """Return whether the tree has a model; stops at the first."""
    return any(
        isinstance(item, MLflowFolder) or os.path.basename(item) == SETTINGS_FILENAME
        for item in _walk(root, lambda text: None)
    )


def _walk(root: str, on_unreadable: Callable[[str], None]) -> Iterator[str | MLflowFolder]:
    """Yield paths of settings files, paths of tracking stores, and MLflow models."""
    real_root = os.path.realpath(root)
    seen: set[str] = set()
    folders, links = [_Place(root)], list[_Place]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(place.path)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(place.path), key=lambda entry: entry.name)
        except OSError as error:
            on_unreadable(f"{place.path}: cannot be read: {error.strerror}")
            continue
        below = place
        if os.path.basename(place.path) in TRACKING_STORES and place.depth > 0:
            if not place.is_in_store:
                yield place.path
            below = replace(below, is_in_store=True)
        if _has_file(place, entries, SETTINGS_FILENAME):
            yield os.path.join(place.path, SETTINGS_FILENAME)
            below = replace(below, owner=below.owner or place.path)
        if _has_file(place, entries, MLFLOW_MODEL_FILENAME):
            if not place.is_part:
                yield MLflowFolder(place.path, real, place.depth, below.is_in_store, below.owner)
            below = replace(below, is_part=True)
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            below = replace(below, is_part=True)
        is_inside = real == real_root or real.startswith(os.path.join(real_root, ""))
        for child in _find_children(place, below, entries, is_inside):
            (links if child.is_link else folders).append(child)


def _has_file(place: _Place, entries: list[os.DirEntry[str]], name: str) -> bool:
    has_entry = any(entry.name == name for entry in entries)
    return has_entry and os.path.isfile(os.path.join(place.path, name))


def _find_children(
    place: _Place, below: _Place, entries: list[os.DirEntry[str]], is_inside: bool
) -> Iterator[_Place]:
    """Yield the folders to search in a folder, in reverse order.

    Args:
        below: Values that the folders inherit.
        is_inside: Whether the folder is below the root, links resolved.
    """
    for entry in reversed(entries):
        if entry.name.startswith(".") or not _is_folder(entry):
            continue
        if not is_inside and not (place.is_link and is_version(entry.name)):
            continue
        yield replace(
            below,
            path=entry.path,
            depth=place.depth + 1,
            is_link=entry.is_symlink(),
            is_part=below.is_part or entry.name in _INSTALLED,
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
