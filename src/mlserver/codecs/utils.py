"""Decoding and encoding of messages: codec selection, decoded payloads, single-tensor requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ..context import joined_rows
from ..errors import CannotBatch
from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
)
from .base import (
    InputCodecLike,
    RequestCodec,
    RequestCodecLike,
    find_input_codec,
    find_input_codec_by_payload,
    find_request_codec,
    find_request_codec_by_payload,
)
from .errors import CodecError
from .lists import is_bytes

if TYPE_CHECKING:
    from ..settings import ModelSettings

DefaultInputPrefix = "input-"
DefaultOutputPrefix = "output-"
DecodedParameterName = "_decoded_payload"

InputOrOutput: TypeAlias = RequestInput | ResponseOutput
Codec: TypeAlias = InputCodecLike | RequestCodecLike
Parametrised: TypeAlias = (
    InferenceRequest | RequestInput | RequestOutput | ResponseOutput | InferenceResponse
)

_NO_TENSORS: Mapping[str, MetadataTensor] = {}


def inject_batch_dimension(shape: list[int]) -> list[int]:
    """Return the shape of an encoded value: [N, 1] for [N], [1] for []; others unchanged."""
    return shape if len(shape) > 1 else [*shape, 1]


# -- decoded payloads, stored in the parameters of the decoded message or tensor --


def has_decoded(parametrised: Parametrised) -> bool:
    """Return whether a decoded payload is stored; it may be None."""
    return parametrised.parameters is not None and hasattr(
        parametrised.parameters, DecodedParameterName
    )


def get_decoded(parametrised: Parametrised) -> Any:
    """Return the stored decoded payload, else None."""
    return getattr(parametrised.parameters, DecodedParameterName, None)


def get_decoded_or_raw(parametrised: Parametrised) -> Any:
    """Return the stored decoded payload, else a tensor's data, else the object itself."""
    if has_decoded(parametrised):
        return get_decoded(parametrised)
    if isinstance(parametrised, RequestInput | ResponseOutput):
        return parametrised.data
    return parametrised


def _save_decoded(parametrised: Parametrised, decoded: Any) -> None:
    if parametrised.parameters is None:
        parametrised.parameters = Parameters()
    # Not a field, so that dumps and comparisons ignore it.
    parametrised.parameters.__dict__[DecodedParameterName] = decoded


# -- selection of codecs --


def get_content_type(parametrised: Any, metadata: Any = None) -> str | None:
    """Return the content type of a message or tensor, else that of its metadata, else None."""
    for described in (parametrised, metadata):
        parameters = None if described is None else described.parameters
        if parameters is not None and parameters.content_type:
            return str(parameters.content_type)
    return None


def decode_request_input(
    request_input: RequestInput, metadata_inputs: Mapping[str, MetadataTensor] = _NO_TENSORS
) -> Any:
    """Decode an input and store the result.

    The codec is that of the input's content type, else of the metadata tensor of its name. Without
    a codec, the stored payload is returned, or None (see `has_decoded`).
    """
    content_type = get_content_type(request_input, metadata_inputs.get(request_input.name))
    codec = find_input_codec(content_type) if content_type else None
    if codec is None:
        return get_decoded(request_input)
    decoded = codec.decode_input(request_input)
    _save_decoded(request_input, decoded)
    return decoded


def decode_inference_request(
    inference_request: InferenceRequest,
    model_settings: ModelSettings | None = None,
    metadata_inputs: Mapping[str, MetadataTensor] = _NO_TENSORS,
) -> Any:
    """Decode every input by its codec, then the request, and store the results.

    The request's codec is that of its content type, else of the model's. Without one, the stored
    payload is returned, or None (see `has_decoded`).
    """
    content_type = get_content_type(inference_request, model_settings)
    codec = find_request_codec(content_type) if content_type else None
    decode_inputs(
        inference_request, metadata_inputs, skip_numbers=codec is not None and _reads_numbers(codec)
    )
    if codec is None:
        return get_decoded(inference_request)
    decoded = codec.decode_request(inference_request)
    _save_decoded(inference_request, decoded)
    return decoded


def decode_inputs(
    inference_request: InferenceRequest,
    metadata_inputs: Mapping[str, MetadataTensor],
    skip_numbers: bool = False,
) -> None:
    """Decode each input by its content type, else by its metadata's.

    Args:
        skip_numbers: Skip numeric tensors whose codec is `np` or none.
    """
    for request_input in inference_request.inputs:
        if skip_numbers and not is_bytes(request_input):
            content_type = get_content_type(request_input, metadata_inputs.get(request_input.name))
            if content_type in (None, "np"):
                continue
        decode_request_input(request_input, metadata_inputs)


def _reads_numbers(codec: RequestCodecLike) -> bool:
    return bool(getattr(codec, "ReadsNumbers", False))


def encode_response_output(
    payload: Any,
    request_output: RequestOutput,
    metadata_outputs: Mapping[str, MetadataTensor] = _NO_TENSORS,
) -> ResponseOutput | None:
    """Encode a value as a requested output; return None if there is no codec.

    The codec is that of the output's content type, else of its metadata's, else the first that
    accepts the value.
    """
    content_type = get_content_type(request_output, metadata_outputs.get(request_output.name))
    codec = find_input_codec(content_type) if content_type else _find_codec_of_value(payload)
    return None if codec is None else codec.encode_output(request_output.name, payload)


def _find_codec_of_value(payload: Any) -> InputCodecLike | None:
    """Return the first codec that accepts a value.

    Raises:
        CannotBatch: the value lists the rows of joined requests, and the rows of one of them alone
            select another codec.
    """
    codec = find_input_codec_by_payload(payload)
    rows_per_request = joined_rows()
    is_joined = len(rows_per_request) > 1 and isinstance(payload, list)
    if is_joined and len(payload) == sum(rows_per_request):
        start = 0
        for row_count in rows_per_request:
            if find_input_codec_by_payload(payload[start : start + row_count]) is not codec:
                raise CannotBatch
            start += row_count
    return codec


def encode_inference_response(
    payload: Any, model_settings: ModelSettings
) -> InferenceResponse | None:
    """Encode a value as a response; return None if there is no codec.

    The codec is that of the model's content type if it accepts the value, else the first that does.
    """
    content_type = get_content_type(None, model_settings)
    codec = find_request_codec(content_type) if content_type else None
    if codec is None or not codec.can_encode(payload):
        codec = find_request_codec_by_payload(payload)
    if codec is None:
        return None
    version = model_settings.parameters.version if model_settings.parameters else None
    return codec.encode_response(model_settings.name, payload, version)


# -- requests of one tensor --


class SingleInputRequestCodec(RequestCodec):
    """A request codec for exactly one tensor, which `InputCodec` converts."""

    InputCodec: ClassVar[InputCodecLike]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return cls.InputCodec.can_encode(payload)

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Any, model_version: str | None = None, **kwargs: Any
    ) -> InferenceResponse:
        return InferenceResponse(
            model_name=model_name,
            model_version=model_version,
            parameters=Parameters(content_type=cls.ContentType),
            outputs=[cls.InputCodec.encode_output(f"{DefaultOutputPrefix}1", payload, **kwargs)],
        )

    @classmethod
    def decode_response(cls, response: InferenceResponse) -> Any:
        output = cls._get_single(response.outputs, "output")
        return get_decoded(output) if has_decoded(output) else cls.InputCodec.decode_output(output)

    @classmethod
    def encode_request(cls, payload: Any, **kwargs: Any) -> InferenceRequest:
        return InferenceRequest(
            parameters=Parameters(content_type=cls.ContentType),
            inputs=[cls.InputCodec.encode_input(f"{DefaultInputPrefix}1", payload, **kwargs)],
        )

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> Any:
        request_input = cls._get_single(request.inputs, "input")
        if has_decoded(request_input):
            return get_decoded(request_input)
        return cls.InputCodec.decode_input(request_input)

    @classmethod
    def _get_single(cls, tensors: list[Any], kind: str) -> Any:
        if len(tensors) != 1:
            raise CodecError(
                f"The '{cls.ContentType}' codec only supports a single {kind} tensor "
                f"({len(tensors)} were received)"
            )
        return tensors[0]
