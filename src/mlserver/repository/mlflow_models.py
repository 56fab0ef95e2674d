"""Names and versions for MLflow models that lie in folders without a settings file.

`wine/MLmodel` is the model `wine`; `wine/1/MLmodel` and `wine/2/MLmodel` are its versions. A folder `artifacts`, as
MLflow's stores have it, stands for the folder above. One name for models of different folders is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlparse

from ..settings import ModelSettings, SettingsError
from .folders import MAX_DEPTH, Contents, MLflowFolder, is_version
from .load import describe_mlflow_model

MAX_MODELS = 1000
_ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class NamedFolder:
    """An MLflow model with the name under which it is served.

    Attributes:
        home: The folder that has the name: the model's, or the one above its versions.
    """

    path: str
    uri: str
    name: str
    version: str | None
    home: str


@dataclass
class Discovery:
    """What to serve of the MLflow models in a repository, and what to tell the user.

    Attributes:
        problems: Names that are refused -> the reason.
    """

    models: list[ModelSettings] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def discover(root: str, contents: Contents, described: list[ModelSettings]) -> Discovery:
    """Name the MLflow models of a repository that no settings file speaks for.

    Args:
        described: The models of the settings files; they keep their names, and the models they refer to.

    Raises:
        SettingsError: there are more than MAX_MODELS.
    """
    discovery = Discovery()
    folders = _select(root, contents, described, discovery)
    if len(folders) > MAX_MODELS:
        raise SettingsError(
            f"{root}: expected at most {MAX_MODELS} MLflow models without settings files, found {len(folders)};"
            " start a folder further down, or write a model-settings.json for each model"
        )
    named = [_name_folder(root, folder) for folder in folders]
    kept = _without_collisions(named, described, discovery)
    discovery.models = [describe_mlflow_model(each.uri, each.name, each.version) for each in kept]
    if kept:
        discovery.notes.append(_summary(root, kept))
    return discovery


def _select(
    root: str, contents: Contents, described: list[ModelSettings], discovery: Discovery
) -> list[MLflowFolder]:
    """The folders to serve: not those of a settings file, and tracking stores only if there is nothing else."""
    referred = {real for settings in described if (real := _real_folder(settings)) is not None}
    free = [folder for folder in contents.mlflow_models if not _is_below_any(folder.real, referred)]
    owned = [folder for folder in free if folder.owner is not None and folder.path != folder.owner]
    for folder in owned:
        discovery.notes.append(
            f"{folder.path}: this MLflow model is not served by itself: it lies below {folder.owner}, which has a"
            " model-settings.json"
        )
    selected = [folder for folder in free if folder.owner is None and not folder.in_store]
    if not selected and not contents.settings_files:
        selected = [folder for folder in free if folder.owner is None]
    elif any(folder.in_store and folder.owner is None for folder in free):
        for store in contents.stores:
            discovery.notes.append(
                f"{store}: this is a tracking store of MLflow, its models are not served beside others; to serve them,"
                f" run 'mlserver start {store}', or 'mlserver start models:/NAME@ALIAS' for a registered one"
            )
    for folder in selected:
        if folder.depth > MAX_DEPTH:
            discovery.warnings.append(
                f"{folder.path}: not served: MLflow models without settings files are served down to {MAX_DEPTH}"
                f" folders below {root}"
            )
    return [folder for folder in selected if folder.depth <= MAX_DEPTH]


def _real_folder(settings: ModelSettings) -> str | None:
    """The folder on this machine that a settings file refers to."""
    uri = settings.parameters.uri if settings.parameters else None
    if not uri or urlparse(uri).scheme not in ("", "file"):
        return None
    path = unquote(urlparse(uri).path) if uri.startswith("file:") else uri
    real = os.path.realpath(os.path.join(settings.folder or "", path))
    return os.path.dirname(real) if os.path.isfile(real) else real


def _is_below_any(real: str, folders: Iterable[str]) -> bool:
    return any(real == folder or real.startswith(os.path.join(folder, "")) for folder in folders)


def _name_folder(root: str, folder: MLflowFolder) -> NamedFolder:
    home = folder.path
    if os.path.basename(home) == _ARTIFACTS and os.path.dirname(home) != root:
        home = os.path.dirname(home)
    version = None
    above = os.path.dirname(home)
    if is_version(os.path.basename(home)) and os.path.basename(above):
        home, version = above, os.path.basename(home)
    uri = (
        folder.path
        if os.path.realpath(root) + folder.path[len(root) :] == folder.real
        else folder.real
    )
    return NamedFolder(folder.path, uri, os.path.basename(home), version, home)


def _without_collisions(
    named: list[NamedFolder], described: list[ModelSettings], discovery: Discovery
) -> list[NamedFolder]:
    """The folders whose names are theirs alone: settings files win, and of two folders neither is served."""
    kept: list[NamedFolder] = []
    by_name: dict[str, list[NamedFolder]] = {}
    for each in named:
        by_name.setdefault(each.name, []).append(each)
    for name, folders in by_name.items():
        others = [settings for settings in described if settings.name == name]
        foreign = [settings for settings in others if not _is_sibling(settings, folders[0])]
        if foreign:
            discovery.warnings += [
                f"{each.path}: left out, model '{name}' is also in {foreign[0].folder}"
                for each in folders
            ]
            continue
        if len({each.home for each in folders}) > 1:
            paths = " and ".join(each.path for each in folders)
            discovery.problems[name] = (
                f"one name for several models: {paths}; rename a folder, or write a model-settings.json with a"
                " 'name' into each"
            )
            continue
        versions = {settings.version for settings in others}
        kept += [each for each in folders if each.version not in versions]
    return kept


def _is_sibling(settings: ModelSettings, folder: NamedFolder) -> bool:
    """Whether the model of a settings file is another version of the folder's model."""
    if settings.version is None or folder.version is None or settings.folder is None:
        return False
    return os.path.dirname(settings.folder) == folder.home


def _summary(root: str, kept: list[NamedFolder]) -> str:
    versions: dict[str, list[str]] = {}
    for each in kept:
        versions.setdefault(each.name, []).extend([each.version] if each.version else [])
    names = [f"{name} ({', '.join(found)})" if found else name for name, found in versions.items()]
    count = "1 MLflow model" if len(kept) == 1 else f"{len(kept)} MLflow models"
    return f"{root}: found {count} without model-settings.json, served under the folders' names: {', '.join(names)}"
