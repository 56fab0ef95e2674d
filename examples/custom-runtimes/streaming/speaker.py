"""Streaming: `predict_stream` yields a response for each piece, as soon as it is there."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Speaker(MLModel):
    """Answers a text word by word; `predict` gives all of them at once."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return self.said(self.words(payload))

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            for word in self.words(payload):
                yield self.said([word])

    def words(self, payload: InferenceRequest) -> list[str]:
        texts = self.decode(payload.inputs[0], default_codec=StringCodec)
        return [word for text in texts for word in text.split()]

    def said(self, words: list[str]) -> InferenceResponse:
        output = StringCodec.encode_output("words", words)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
