"""Custom metrics: registered at load, logged in predict, on the server's metrics page."""

from __future__ import annotations

import numpy as np

import mlserver
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Measured(MLModel):
    """Returns the mean of each request, and logs it."""

    async def load(self) -> bool:
        mlserver.register("request_mean", "Mean of the values in one request")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        mean = float(values.mean())
        mlserver.log(request_mean=mean, request_rows=len(values))
        output = NumpyCodec.encode_output("mean", np.array([mean]))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
