"""Repository of a fixed list of models, as for `mlserver start models:/wine@champion`."""

from __future__ import annotations

import builtins
from typing import Any

from ..errors import ModelNotFound
from ..settings import ModelSettings
from .repository import ModelRepository


class StaticModelRepository(ModelRepository):
    """Repository of a fixed list of models.

    Args:
        root: Ignored; part of the contract of repositories.
        models: Content of a `model-settings.json` for each model, as plain data.
    """

    def __init__(self, root: str, models: builtins.list[dict[str, Any]]) -> None:
        super().__init__(root)
        self._models = models

    async def list(self) -> builtins.list[ModelSettings]:
        return [ModelSettings.load(values) for values in self._models]

    async def find(self, name: str) -> builtins.list[ModelSettings]:
        versions = [settings for settings in await self.list() if settings.name == name]
        if not versions:
            raise ModelNotFound(name)
        return versions
