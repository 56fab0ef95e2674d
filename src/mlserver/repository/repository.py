"""What a repository is, and the one that finds models in folders."""

from __future__ import annotations

import asyncio
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import MLServerError, ModelNotFound
from ..logging import logger
from ..settings import ModelSettings, SettingsError
from .load import (
    DEFAULT_MODEL_SETTINGS_FILENAME,
    MLFLOW_IMPLEMENTATION,
    MLFLOW_MODEL_FILENAME,
    load_from_environment,
    load_mlflow_model,
    load_model_settings,
    name_of,
)

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
    """Models in a folder, at any depth: each folder with a `model-settings.json` is one version of a model.

    Without any such file: the MLflow model that the folder itself is, or the one that the environment describes.
    Hidden folders are left out. Links are followed, except that behind a link out of the root only the folder that it
    leads to is looked at, not those below; no folder is read twice.
    """

    def __init__(self, root: str, **arguments: Any) -> None:
        if arguments:
            names = ", ".join(sorted(arguments))
            raise SettingsError(f"model_repository_implementation_args: unknown argument(s) {names}")
        super().__init__(os.path.abspath(root))
        self._problems: dict[str, str] = {}
        self._said: set[str] = set()
        self._mlflow: list[str] = []

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
        self._mlflow = []
        files = list(self._files(self._root, set()))
        models = self._distinct([each for each in (self._model(file, problems) for file in files) if each])
        if not models:
            alone = (None if files else load_mlflow_model(self._root)) or load_from_environment(self._root)
            models = [alone] if alone else []
        if not models and not problems:
            self._say_what_is_not_served()
        self._problems = problems
        return models

    def _files(self, folder: str, seen: set[str]) -> Iterator[str]:
        """The settings files in a folder and below it, in the order of their names."""
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._say(f"{folder}: cannot be read: {error.strerror}")
            return
        file = os.path.join(folder, DEFAULT_MODEL_SETTINGS_FILENAME)
        if os.path.isfile(file):
            yield file
        elif any(entry.name == MLFLOW_MODEL_FILENAME for entry in entries):
            self._mlflow.append(os.path.relpath(folder, self._root))
        if not self._is_inside(real):
            return
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                yield from self._files(entry.path, seen)

    def _is_inside(self, real: str) -> bool:
        root = os.path.realpath(self._root)
        return real == root or real.startswith(os.path.join(root, ""))

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
                self._say(f"{settings.folder}: left out, model '{settings.name}'{version} is also in {first.folder}")
        return list(kept.values())

    def _say_what_is_not_served(self) -> None:
        """MLflow models that nothing serves are most likely what the user meant."""
        if not self._mlflow:
            return
        several = "" if len(self._mlflow) == 1 else f" and {len(self._mlflow) - 1} more"
        text = json.dumps({"implementation": MLFLOW_IMPLEMENTATION})
        self._say(
            f"{self._root}: no {DEFAULT_MODEL_SETTINGS_FILENAME}, but an MLflow model in {self._mlflow[0]}{several}; to serve it,"
            f" write {text} to {os.path.join(self._mlflow[0], DEFAULT_MODEL_SETTINGS_FILENAME)}"
        )

    def _say(self, text: str) -> None:
        """Warn once; the index reads the folders again and again."""
        if text not in self._said:
            self._said.add(text)
            logger.warning("%s", text)
