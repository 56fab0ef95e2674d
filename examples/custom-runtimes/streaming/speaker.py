"""Streaming: `predict_stream` yields responses, each of which is sent at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Speaker(MLModel):
    """Streams the words of a text; `predict` returns all of them in one response."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return self.make_response(self.words(payload))

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            for word in self.words(payload):
                yield self.make_response([word])

    def words(self, payload: InferenceRequest) -> list[str]:
        texts = self.decode(payload.inputs[0], default_codec=StringCodec)
        return [word for text in texts for word in text.split()]

    def make_response(self, words: list[str]) -> InferenceResponse:
        output = StringCodec.encode_output("words", words)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
