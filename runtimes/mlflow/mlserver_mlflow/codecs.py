"""Codec of the content type `dict`: a dictionary of named arrays, one tensor per key."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlserver.codecs import NumpyCodec, RequestCodec, get_decoded_or_raw, register_request_codec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)

Arrays: TypeAlias = dict[str, NDArray[Any]]


@register_request_codec
class TensorDictCodec(RequestCodec):
    """Named tensors <-> a dictionary of arrays."""

    ContentType = "dict"
    TypeHint = Arrays

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return isinstance(payload, dict) and all(
            isinstance(value, np.ndarray) for value in payload.values()
        )

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Arrays, model_version: str | None = None, **kwargs: Any
    ) -> InferenceResponse:
        return InferenceResponse(
            model_name=model_name,
            model_version=model_version,
            parameters=Parameters(content_type=cls.ContentType),
            outputs=[NumpyCodec.encode_output(name, value) for name, value in payload.items()],
        )

    @classmethod
    def decode_response(cls, response: InferenceResponse) -> Arrays:
        return {output.name: _to_array(output) for output in response.outputs}

    @classmethod
    def encode_request(cls, payload: Arrays, **kwargs: Any) -> InferenceRequest:
        return InferenceRequest(
            parameters=Parameters(content_type=cls.ContentType),
            inputs=[NumpyCodec.encode_input(name, value) for name, value in payload.items()],
        )

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> Arrays:
        return {tensor.name: _to_array(tensor) for tensor in request.inputs}


def _to_array(tensor: RequestInput | ResponseOutput) -> NDArray[Any]:
    """Return the tensor as an array, from its decoded value if a codec has decoded it."""
    decoded = get_decoded_or_raw(tensor)
    if isinstance(decoded, TensorData):
        return decoded.to_array(str(tensor.datatype), tensor.shape)
    return np.asarray(decoded)
