"""A model for servers that run in the test's process; workers can import it."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Ones(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name="ones", shape=[1], datatype="INT64", data=[1])
        return InferenceResponse(model_name=self.name, outputs=[output])
