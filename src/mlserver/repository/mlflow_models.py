"""Names and versions of MLflow models in folders without a settings file.

`wine/MLmodel` is the model `wine`; `wine/1/MLmodel` and `wine/2/MLmodel` are its versions. A folder
`artifacts` (in MLflow's stores) takes the name of its parent. One name for models of different
folders is an error.
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

from ..settings import ModelSettings, SettingsError
from .folders import MAX_DEPTH, Contents, MLflowFolder, is_version
from .load import create_mlflow_settings

MAX_MODELS = 1000
_ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class NamedFolder:
    """An MLflow model and its name.

    Attributes:
        home: Folder whose name is the model's: the model's own, or the parent of its versions.
    """

    path: str
    uri: str
    name: str
    version: str | None
    home: str


@dataclass
class Discovery:
    """MLflow models to serve, and messages for the user.

    Attributes:
        problems: Rejected name -> reason.
    """

    models: list[ModelSettings] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def discover(root: str, contents: Contents, described: list[ModelSettings]) -> Discovery:
    """Assign names to the MLflow models of a repository that no settings file refers to.

    Args:
        described: Models of the settings files; their names and folders are excluded.

    Raises:
        SettingsError: there are more than MAX_MODELS.
    """
    discovery = Discovery()
    folders = _select(root, contents, described, discovery)
    if len(folders) > MAX_MODELS:
        raise SettingsError(
            f"{root}: expected at most {MAX_MODELS} MLflow models without settings files, found"
            f" {len(folders)}; start a folder further down, or write a model-settings.json for"
            " each model"
        )
    named = [_name_folder(root, folder) for folder in folders]
    kept = _without_collisions(named, described, discovery)
    discovery.models = [create_mlflow_settings(each.uri, each.name, each.version) for each in kept]
    if kept:
        discovery.notes.append(_summary(root, kept))
    return discovery


def _select(
    root: str, contents: Contents, described: list[ModelSettings], discovery: Discovery
) -> list[MLflowFolder]:
    """Return the folders to serve; those in tracking stores only if there are no others."""
    referred = {real for settings in described if (real := _real_folder(settings)) is not None}
    free = [folder for folder in contents.mlflow_models if not _is_in_any(folder.real, referred)]
    owned = [folder for folder in free if folder.owner is not None and folder.path != folder.owner]
    for folder in owned:
        discovery.notes.append(
            f"{folder.path}: MLflow model skipped: {folder.owner} above it has a"
            " model-settings.json"
        )
    selected = [folder for folder in free if folder.owner is None and not folder.is_in_store]
    if not selected and not contents.settings_files:
        selected = [folder for folder in free if folder.owner is None]
    elif any(folder.is_in_store and folder.owner is None for folder in free):
        for store in contents.stores:
            discovery.notes.append(
                f"{store}: MLflow tracking store skipped, because there are other models; to serve"
                f" its models, run 'mlserver start {store}', or 'mlserver start"
                " models:/NAME@ALIAS' for a registered one"
            )
    for folder in selected:
        if folder.depth > MAX_DEPTH:
            discovery.warnings.append(
                f"{folder.path}: skipped: expected an MLflow model without settings file at most"
                f" {MAX_DEPTH} folders below {root}, received depth {folder.depth}"
            )
    return [folder for folder in selected if folder.depth <= MAX_DEPTH]


def _real_folder(settings: ModelSettings) -> str | None:
    """Return the local folder that a settings file refers to, links resolved."""
    uri = settings.parameters.uri if settings.parameters else None
    if not uri or urlparse(uri).scheme not in ("", "file"):
        return None
    path = unquote(urlparse(uri).path) if uri.startswith("file:") else uri
    real = os.path.realpath(os.path.join(settings.folder or "", path))
    return os.path.dirname(real) if os.path.isfile(real) else real


def _is_in_any(real: str, folders: Set[str]) -> bool:
    """Whether a path is one of the folders or below one of them."""
    path = Path(real)
    return any(str(folder) in folders for folder in (path, *path.parents))


def _name_folder(root: str, folder: MLflowFolder) -> NamedFolder:
    home = folder.path
    if os.path.basename(home) == _ARTIFACTS and os.path.dirname(home) != root:
        home = os.path.dirname(home)
    version = None
    above = os.path.dirname(home)
    if is_version(os.path.basename(home)) and os.path.basename(above):
        home, version = above, os.path.basename(home)
    has_links = os.path.realpath(root) + folder.path[len(root) :] != folder.real
    uri = folder.real if has_links else folder.path
    return NamedFolder(folder.path, uri, os.path.basename(home), version, home)


def _without_collisions(
    named: list[NamedFolder], described: list[ModelSettings], discovery: Discovery
) -> list[NamedFolder]:
    """Return the folders with unique names; settings files have precedence over folders."""
    kept: list[NamedFolder] = []
    by_name: dict[str, list[NamedFolder]] = {}
    for folder in named:
        by_name.setdefault(folder.name, []).append(folder)
    described_by_name: dict[str, list[ModelSettings]] = {}
    for settings in described:
        described_by_name.setdefault(settings.name, []).append(settings)
    for name, folders in by_name.items():
        others = described_by_name.get(name, [])
        foreign = [settings for settings in others if not _is_sibling(settings, folders[0])]
        if foreign:
            discovery.warnings += [
                f"{each.path}: skipped, model '{name}' is also in {foreign[0].folder}"
                for each in folders
            ]
            continue
        if len({each.home for each in folders}) > 1:
            paths = " and ".join(each.path for each in folders)
            discovery.problems[name] = (
                f"one name for several models: {paths}; rename a folder, or write a"
                " model-settings.json with a 'name' into each"
            )
            continue
        versions = {settings.version for settings in others}
        kept += [each for each in folders if each.version not in versions]
    return kept


def _is_sibling(settings: ModelSettings, folder: NamedFolder) -> bool:
    """Return whether the model of a settings file is another version of the folder's model."""
    if settings.version is None or folder.version is None or settings.folder is None:
        return False
    return os.path.dirname(settings.folder) == folder.home


def _summary(root: str, kept: list[NamedFolder]) -> str:
    versions: dict[str, list[str]] = {}
    for each in kept:
        versions.setdefault(each.name, []).extend([each.version] if each.version else [])
    names = [_format_versions(name, listed) for name, listed in versions.items()]
    count = "1 MLflow model" if len(kept) == 1 else f"{len(kept)} MLflow models"
    return (
        f"{root}: found {count} without model-settings.json, served under the folders' names:"
        f" {', '.join(names)}"
    )


def _format_versions(name: str, versions: list[str]) -> str:
    return f"{name} ({', '.join(versions)})" if versions else name
