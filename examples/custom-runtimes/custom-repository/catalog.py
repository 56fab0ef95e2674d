"""Custom model repository: the models are read from the file `catalog.json`."""

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
    """Lists the entries of a catalogue file, which is read on each call, as models."""

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
        versions = [settings for settings in await self.list() if settings.name == name]
        if not versions:
            raise ModelNotFound(name)
        return versions


class Scaler(MLModel):
    """Multiplies every value by the factor in the model's settings."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        assert self.settings.parameters is not None
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output(
            "scaled", values * self.settings.parameters.extra["factor"]
        )
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
