"""What lies in a folder and below it: files with model settings, and MLflow models without such a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

SETTINGS_FILENAME = "model-settings.json"
MLFLOW_MODEL_FILENAME = "MLmodel"
# Folders below the root in which MLflow models are looked for; settings files may lie deeper.
MAX_DEPTH = 10
# Where MLflow keeps what was logged: a history of training, not a list of models to serve.
TRACKING_STORES = frozenset({"mlruns", "mlartifacts"})
_INSTALLED = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class MLflowFolder:
    """A folder that holds an MLflow model.

    Attributes:
        path: As seen from the root.
        real: Where it is; another path if a link leads to it.
        depth: Folders between the root and it, itself included.
        in_store: It belongs to a tracking store.
        owner: The folder above it that has a settings file.
    """

    path: str
    real: str
    depth: int
    in_store: bool
    owner: str | None


@dataclass
class Contents:
    """Everything that was found, in the order of the paths."""

    settings_files: list[str] = field(default_factory=list)
    mlflow_models: list[MLflowFolder] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    path: str
    depth: int = 0
    in_store: bool = False
    owner: str | None = None
    is_link: bool = False
    # Below an MLflow model, or among installed packages: MLflow models here are parts of something else.
    is_part: bool = False


def is_version(name: str) -> bool:
    """Whether a folder's name is a version number."""
    return _NUMBER.fullmatch(name) is not None


def find_contents(root: str, unreadable: Callable[[str], None]) -> Contents:
    """Look into a folder and all below it, the hidden ones left out.

    Links are followed after everything else, so that a folder counts under its own path if that is below the root.
    Behind a link out of the root, only the folder that it leads to and version numbers in it are looked at. No folder
    is read twice.

    Args:
        unreadable: Called with a line about each folder that cannot be read.
    """
    contents = Contents()
    for item in _walk(root, unreadable):
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
    """Whether there is anything to serve; stops at the first model."""
    return any(
        isinstance(item, MLflowFolder) or os.path.basename(item) == SETTINGS_FILENAME
        for item in _walk(root, lambda text: None)
    )


def _walk(root: str, unreadable: Callable[[str], None]) -> Iterator[str | MLflowFolder]:
    """Paths of settings files and of tracking stores, and MLflow models."""
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
            unreadable(f"{place.path}: cannot be read: {error.strerror}")
            continue
        names = {entry.name for entry in entries}
        store = os.path.basename(place.path) in TRACKING_STORES and place.depth > 0
        if store and not place.in_store:
            yield place.path
        below = replace(place, in_store=place.in_store or store)
        if SETTINGS_FILENAME in names and os.path.isfile(
            file := os.path.join(place.path, SETTINGS_FILENAME)
        ):
            yield file
            below = replace(below, owner=below.owner or place.path)
        if MLFLOW_MODEL_FILENAME in names and os.path.isfile(
            os.path.join(place.path, MLFLOW_MODEL_FILENAME)
        ):
            if not place.is_part:
                yield MLflowFolder(place.path, real, place.depth, below.in_store, below.owner)
            below = replace(below, is_part=True)
        if "pyvenv.cfg" in names:
            below = replace(below, is_part=True)
        is_inside = real == real_root or real.startswith(os.path.join(real_root, ""))
        for entry in reversed(entries):
            if entry.name.startswith(".") or not _is_folder(entry):
                continue
            if not is_inside and not (place.is_link and is_version(entry.name)):
                continue
            child = replace(
                below,
                path=entry.path,
                depth=place.depth + 1,
                is_link=entry.is_symlink(),
                is_part=below.is_part or entry.name in _INSTALLED,
            )
            (links if child.is_link else folders).append(child)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
