"""Comparison of a model's requirements file with the installed packages."""

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


def find_files(model: ModelSettings) -> list[str]:
    """Return the requirements files beside the model's settings and in the folder of its URI."""
    folders = [model.folder] if model.folder else []
    uri = model.parameters.uri if model.parameters else None
    model_folder = locate(uri, model.folder) if uri else None
    if model_folder is not None:
        folders.append(model_folder)
    candidates = dict.fromkeys(os.path.join(folder, FILENAME) for folder in folders)
    return [path for path in candidates if os.path.isfile(path)]


def find_unmet(path: str) -> Iterator[str]:
    """Yield a line for each unmet requirement of a file; options, URLs and folders are skipped."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        yield "cannot be compared with the installed packages: pip install packaging"
        return

    with open(path, encoding="utf-8") as lines:
        for line in lines:
            text = line.partition(" #")[0].strip()
            if not text or text.startswith(("#", "-", ".", "/")):
                continue
            try:
                requirement = Requirement(text.partition(" --")[0])
            except InvalidRequirement:
                continue
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            yield from _compare(requirement.name, requirement.specifier)


def _compare(name: str, specifier: SpecifierSet) -> Iterator[str]:
    try:
        installed = version(name)
    except PackageNotFoundError:
        yield f"{name}{specifier} is required, but not installed"
        return
    if not specifier.contains(installed, prereleases=True):
        yield f"{name}{specifier} is required, but {installed} is installed"
