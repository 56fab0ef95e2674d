"""The repository of a server that is told its models outright, such as `mlserver start models:/wine@champion`."""

from __future__ import annotations

import builtins
from typing import Any

from ..errors import ModelNotFound
from ..settings import ModelSettings
from .repository import ModelRepository


class StaticModelRepository(ModelRepository):
    """Models as plain values, each with the fields of a `model-settings.json`.

    Args:
        root: Not looked at; every repository takes one.
        models: The models' values; plain data, so that a settings file can hold them too.
    """

    def __init__(self, root: str, models: builtins.list[dict[str, Any]]) -> None:
        super().__init__(root)
        self._models = models

    async def list(self) -> builtins.list[ModelSettings]:
        return [ModelSettings.load(values) for values in self._models]

    async def find(self, name: str) -> builtins.list[ModelSettings]:
        found = [settings for settings in await self.list() if settings.name == name]
        if not found:
            raise ModelNotFound(name)
        return found
