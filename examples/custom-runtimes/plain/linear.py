"""Minimal runtime: reads a file in `load`; decodes inputs and encodes an output in `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Linear(MLModel):
    """A weighted sum of each row."""

    async def load(self) -> bool:
        path = await get_model_uri(self.settings, wellknown_filenames=["weights.json"])
        self.read(Path(path))
        return True

    def read(self, path: Path) -> None:
        values = json.loads(path.read_text())
        self.weights = np.array(values["weights"])
        self.bias = float(values["bias"])

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        total = rows @ self.weights + self.bias
        output = NumpyCodec.encode_output("total", total)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
