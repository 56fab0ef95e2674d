"""Custom codec: the content type `color` is "#ff8800" on the wire and (255, 136, 0) in Python."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import CodecError, InputCodec, StringCodec, register_input_codec
from mlserver.codecs.lists import is_list_of
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
)

Color = tuple[int, int, int]


@register_input_codec
class ColorCodec(InputCodec):
    """Reads and writes lists of colors."""

    ContentType = "color"
    TypeHint = list[Color]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return bool(payload) and is_list_of(payload, tuple)

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> list[Color]:
        return [_color(text) for text in StringCodec.decode_input(request_input)]

    @classmethod
    def encode_output(cls, name: str, payload: list[Color], **options: Any) -> ResponseOutput:
        output = StringCodec.encode_output(
            name, ["#{:02x}{:02x}{:02x}".format(*color) for color in payload]
        )
        output.parameters = Parameters(content_type=cls.ContentType)
        return output


def _color(text: str) -> Color:
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError:
        raise CodecError(f"expected a color such as '#ff8800', received '{text[:20]}'") from None
    return red, green, blue


class Inverter(MLModel):
    """Inverts each color. The content type `color` of its input is in the model's settings."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        colors: list[Color] = self.decode(payload.inputs[0])
        opposite = [(255 - red, 255 - green, 255 - blue) for red, green, blue in colors]
        output = ColorCodec.encode_output("opposite", opposite)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
