"""Base class of repositories, and the repository of folders."""

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
from .load import load_from_environment, load_mlflow_model, load_model_settings, read_name
from .mlflow_models import discover

# An alias: in the classes below, `list` is a method.
Models = list[ModelSettings]


class ModelRepository(ABC):
    """Base class, called with `root` and the setting `model_repository_implementation_args`.

    Attributes:
        logs_problems: Whether `list` and `find` log new problems; False if the caller reports
            `problems`.
    """

    logs_problems = True

    def __init__(self, root: str) -> None:
        self._root = root

    @abstractmethod
    async def list(self) -> Models:
        """Return the settings of every version of every model."""

    @abstractmethod
    async def find(self, name: str) -> Models:
        """Return the settings of every version of one model. Raises `ModelNotFound`."""

    @property
    def problems(self) -> Mapping[str, str]:
        """Models with invalid settings, as of the last `list` or `find`: name -> reason."""
        return {}


class SchemalessModelRepository(ModelRepository):
    """Models in a folder tree.

    - A folder with a `model-settings.json` is one version of a model.
    - An MLflow model without such a file is served under its folder's name; a folder with a number
      as its name is a version of its parent folder.
    - Without any such file: the root itself if it is an MLflow model, or the model of the
      environment.

    See `find_contents` for hidden folders and links.
    """

    def __init__(self, root: str, **arguments: Any) -> None:
        if arguments:
            names = ", ".join(sorted(arguments))
            raise SettingsError(
                f"model_repository_implementation_args: unknown argument(s) {names}"
            )
        super().__init__(os.path.abspath(root))
        self._problems: dict[str, str] = {}
        self._logged: set[str] = set()

    @property
    def problems(self) -> Mapping[str, str]:
        return dict(self._problems)

    async def list(self) -> Models:
        """Read the folders.

        Raises:
            SettingsError: the root is not a folder, or a variable `MLSERVER_MODEL_*` is not valid.
        """
        return await asyncio.to_thread(self._read)

    async def find(self, name: str) -> Models:
        versions = [settings for settings in await self.list() if settings.name == name]
        if versions:
            return versions
        if name in self._problems:
            raise MLServerError(f"Model {name} cannot be loaded: {self._problems[name]}")
        raise ModelNotFound(name)

    def _read(self) -> Models:
        if not os.path.isdir(self._root):
            what = "is not a folder" if os.path.exists(self._root) else "does not exist"
            raise SettingsError(f"model repository {self._root} {what}")
        problems: dict[str, str] = {}
        contents = find_contents(self._root, self._log_once)
        files = contents.settings_files
        described = [self._read_file(file, problems) for file in files]
        models = self._remove_duplicates([settings for settings in described if settings])
        single = None if models else self._read_single(has_files=bool(files))
        if single is not None:
            models = [single]
        elif load_from_environment(self._root) is None:
            models += self._discover(contents, models, problems)
        self._problems = problems
        return models

    def _read_single(self, has_files: bool) -> ModelSettings | None:
        """Return the model that is the root itself, or the model of the environment."""
        root_model = None if has_files else load_mlflow_model(self._root)
        return root_model or load_from_environment(self._root)

    def _discover(self, contents: Contents, described: Models, problems: dict[str, str]) -> Models:
        """Return the MLflow models without settings files."""
        below_root = [model for model in contents.mlflow_models if model.depth > 0]
        discovery = discover(self._root, replace(contents, mlflow_models=below_root), described)
        for name, reason in discovery.problems.items():
            self._log_problem(f"Model '{name}': {reason}")
            problems.setdefault(name, reason.replace(os.path.join(self._root, ""), ""))
        for text in discovery.warnings:
            self._log_once(text)
        for text in discovery.notes:
            self._log_once(text, logging.INFO)
        return discovery.models

    def _read_file(self, file: str, problems: dict[str, str]) -> ModelSettings | None:
        try:
            settings = load_model_settings(file)
        except SettingsError as error:
            # The index shows the reason to clients: with the path relative to the root.
            problems[read_name(file)] = error.message.replace(os.path.join(self._root, ""), "")
            self._log_problem(f"{error.message} (this model is skipped)")
            return None
        folder = os.path.basename(os.path.dirname(file))
        if folder not in (settings.name, settings.version) and os.path.dirname(file) != self._root:
            self._log_once(
                f"{file}: the model's name is '{settings.name}', its folder's '{folder}'"
            )
        return settings

    def _remove_duplicates(self, models: Models) -> Models:
        """Return the first model of each name and version."""
        kept: dict[tuple[str, str | None], ModelSettings] = {}
        for settings in models:
            first = kept.setdefault((settings.name, settings.version), settings)
            if first is not settings:
                version = f" version '{settings.version}'" if settings.version else ""
                self._log_once(
                    f"{settings.folder}: skipped, model '{settings.name}'{version} is also in"
                    f" {first.folder}"
                )
        return list(kept.values())

    def _log_problem(self, text: str) -> None:
        if self.logs_problems:
            self._log_once(text)
        self._logged.add(text)

    def _log_once(self, text: str, level: int = logging.WARNING) -> None:
        """Log a message once: the folders are read at every request for the index."""
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, "%s", text)
