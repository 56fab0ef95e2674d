"""What a model's requirements file asks for, against what is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ..locations import locate
from ..settings import ModelSettings

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

FILENAME = "requirements.txt"


def files_of(model: ModelSettings) -> list[str]:
    """The requirements files of a model: beside its settings, and beside its own files."""
    folders = [model.folder] if model.folder else []
    uri = model.parameters.uri if model.parameters else None
    path = locate(uri, model.folder) if uri else None
    if path is not None:
        folders.append(path)
    candidates = dict.fromkeys(os.path.join(folder, FILENAME) for folder in folders)
    return [path for path in candidates if os.path.isfile(path)]


def unmet(path: str) -> Iterator[str]:
    """What a requirements file asks for and is not there, one line each. Options, addresses and folders are left out."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        yield f"{os.path.basename(path)} cannot be compared with what is installed: pip install packaging"
        return

    with open(path, encoding="utf-8") as lines:
        for line in lines:
            text = line.partition(" #")[0].strip()
            if not text or text.startswith(("#", "-", ".", "/")):
                continue
            try:
                wanted = Requirement(text.partition(" --")[0])
            except InvalidRequirement:
                continue
            if wanted.marker is not None and not wanted.marker.evaluate():
                continue
            yield from _compare(wanted.name, wanted.specifier)


def _compare(name: str, specifier: SpecifierSet) -> Iterator[str]:
    try:
        installed = version(name)
    except PackageNotFoundError:
        yield f"{name}{specifier} is asked for and not installed"
        return
    if not specifier.contains(installed, prereleases=True):
        yield f"{name}{specifier} is asked for, {installed} is installed"
