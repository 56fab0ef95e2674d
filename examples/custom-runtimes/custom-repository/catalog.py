"""A repository of one's own: which models exist is read from one file, `catalog.json`, instead of from folders."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

from mlserver import MLModel, ModelSettings
from mlserver.codecs import NumpyCodec
from mlserver.errors import ModelNotFound
from mlserver.repository import ModelRepository
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Catalog(ModelRepository):
    """The entries of a catalogue as models. It is read anew each time, so a new entry can be loaded without a restart."""

    def __init__(self, root: str, filename: str = "catalog.json") -> None:
        super().__init__(root)
        self._path = Path(root) / filename

    async def list(self) -> list[ModelSettings]:
        entries = json.loads(self._path.read_text())
        return [
            ModelSettings(
                name=entry["name"],
                implementation=Scaler,
                parameters=ModelParameters(
                    version=entry["version"], extra={"factor": entry["factor"]}
                ),
            )
            for entry in entries
        ]

    async def find(self, name: str) -> builtins.list[ModelSettings]:
        found = [settings for settings in await self.list() if settings.name == name]
        if not found:
            raise ModelNotFound(name)
        return found


class Scaler(MLModel):
    """Every value times the factor in the model's settings."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        assert self.settings.parameters is not None
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output(
            "scaled", values * self.settings.parameters.extra["factor"]
        )
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
