"""Custom REST paths: JSON requests and responses, with FastAPI's rules for parameters."""

from __future__ import annotations

from pydantic import BaseModel

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse

GOOD, BAD = {"good", "great", "love"}, {"bad", "awful", "hate"}


class Review(BaseModel):
    """The body of POST /review."""

    text: str


class Sentiment(MLModel):
    """Labels texts as good, bad or neutral."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = self.decode(payload.inputs[0], default_codec=StringCodec)
        output = StringCodec.encode_output("label", [label_of(text) for text in texts])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    @custom_handler("/review")
    async def review(self, review: Review, loud: bool = False) -> dict[str, str]:
        if not review.text.strip():
            raise MLServerError("A review needs at least one word", 422)
        label = label_of(review.text)
        return {"label": label.upper() if loud else label}

    @custom_handler("/words/{kind}", rest_method="GET")
    async def words(self, kind: str) -> list[str]:
        return sorted(GOOD if kind == "good" else BAD)


def label_of(text: str) -> str:
    words = set(text.lower().split())
    score = len(words & GOOD) - len(words & BAD)
    return "good" if score > 0 else "bad" if score < 0 else "neutral"
