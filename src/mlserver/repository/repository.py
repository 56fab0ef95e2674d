"""What a repository is, and the one that finds models in folders."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import MLServerError, ModelNotFound
from ..logging import logger
from ..settings import ModelSettings, SettingsError
from .folders import Contents, find_contents
from .load import load_from_environment, load_mlflow_model, load_model_settings, name_of
from .mlflow_models import discover

# `list` is also the name of a method here.
Models = list[ModelSettings]


class ModelRepository(ABC):
    """Base of all repositories, made as `Repository(root=..., **model_repository_implementation_args)`."""

    def __init__(self, root: str) -> None:
        self._root = root

    @abstractmethod
    async def list(self) -> Models:
        """The settings of every version of every model."""

    @abstractmethod
    async def find(self, name: str) -> Models:
        """The settings of every version of one model. Raises `ModelNotFound` if there is none."""

    @property
    def problems(self) -> Mapping[str, str]:
        """Models that are there but cannot be used, as the last `list` or `find` saw it: name -> what is wrong."""
        return {}


class SchemalessModelRepository(ModelRepository):
    """Models in a folder, at any depth.

    - Each folder with a `model-settings.json` is one version of a model.
    - Each MLflow model that no such file speaks for is served under its folder's name; a folder whose name is a number
      is a version of the folder above.
    - Without any such file: the MLflow model that the root itself is, or the one that the environment describes.

    Hidden folders are left out. Links are followed, except that behind a link out of the root only the folder that it
    leads to and version numbers in it are looked at; no folder is read twice.
    """

    def __init__(self, root: str, **arguments: Any) -> None:
        if arguments:
            names = ", ".join(sorted(arguments))
            raise SettingsError(
                f"model_repository_implementation_args: unknown argument(s) {names}"
            )
        super().__init__(os.path.abspath(root))
        self._problems: dict[str, str] = {}
        self._said: set[str] = set()

    @property
    def problems(self) -> Mapping[str, str]:
        return dict(self._problems)

    async def list(self) -> Models:
        """Read the folders now.

        Raises:
            SettingsError: There is no such root folder, or the environment describes a model wrongly.
        """
        return await asyncio.to_thread(self._read)

    async def find(self, name: str) -> Models:
        found = [settings for settings in await self.list() if settings.name == name]
        if found:
            return found
        if name in self._problems:
            raise MLServerError(f"Model {name} cannot be loaded: {self._problems[name]}")
        raise ModelNotFound(name)

    def _read(self) -> Models:
        if not os.path.isdir(self._root):
            what = "is not a folder" if os.path.exists(self._root) else "does not exist"
            raise SettingsError(f"model repository {self._root} {what}")
        problems: dict[str, str] = {}
        contents = find_contents(self._root, self._say)
        files = contents.settings_files
        models = self._distinct(
            [each for each in (self._model(file, problems) for file in files) if each]
        )
        alone = None if models else self._read_single(has_files=bool(files))
        if alone is not None:
            models = [alone]
        elif load_from_environment(self._root) is None:
            models += self._discover(contents, models, problems)
        self._problems = problems
        return models

    def _read_single(self, has_files: bool) -> ModelSettings | None:
        """The one model that the root itself is, or that the environment describes."""
        root_model = None if has_files else load_mlflow_model(self._root)
        return root_model or load_from_environment(self._root)

    def _discover(self, contents: Contents, described: Models, problems: dict[str, str]) -> Models:
        """The MLflow models without settings files."""
        below_root = [model for model in contents.mlflow_models if model.depth > 0]
        discovery = discover(self._root, replace(contents, mlflow_models=below_root), described)
        for name, reason in discovery.problems.items():
            self._say(f"Model '{name}': {reason}")
            problems.setdefault(name, reason.replace(os.path.join(self._root, ""), ""))
        for text in discovery.warnings:
            self._say(text)
        for text in discovery.notes:
            self._say(text, logging.INFO)
        return discovery.models

    def _model(self, file: str, problems: dict[str, str]) -> ModelSettings | None:
        try:
            settings = load_model_settings(file)
        except SettingsError as error:
            # Callers see the reason in the index: it names the file as seen from the root, not the machine's folders.
            problems[name_of(file)] = error.message.replace(os.path.join(self._root, ""), "")
            self._say(f"{error.message} (this model is left out)")
            return None
        folder = os.path.basename(os.path.dirname(file))
        if folder not in (settings.name, settings.version) and os.path.dirname(file) != self._root:
            self._say(f"{file}: the model's name is '{settings.name}', its folder's '{folder}'")
        return settings

    def _distinct(self, models: Models) -> Models:
        """One model for each name and version: the first."""
        kept: dict[tuple[str, str | None], ModelSettings] = {}
        for settings in models:
            first = kept.setdefault((settings.name, settings.version), settings)
            if first is not settings:
                version = f" version '{settings.version}'" if settings.version else ""
                self._say(
                    f"{settings.folder}: left out, model '{settings.name}'{version} is also in {first.folder}"
                )
        return list(kept.values())

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        """Log once; the index reads the folders again and again."""
        if text not in self._said:
            self._said.add(text)
            logger.log(level, "%s", text)
