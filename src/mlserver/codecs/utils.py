"""What codecs share: the memory of a decoded payload, the order in which codecs are chosen, single-tensor requests."""

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
    """The shape of an encoded value: [N] becomes [N, 1] and [] becomes [1]; others stay."""
    return shape if len(shape) > 1 else [*shape, 1]


# -- the decoded payload, kept on the parameters of what was decoded --


def has_decoded(parametrised: Parametrised) -> bool:
    """Whether a decoded payload is kept (it may be None)."""
    return parametrised.parameters is not None and hasattr(
        parametrised.parameters, DecodedParameterName
    )


def get_decoded(parametrised: Parametrised) -> Any:
    """The decoded payload that is kept, else None."""
    return getattr(parametrised.parameters, DecodedParameterName, None)


def get_decoded_or_raw(parametrised: Parametrised) -> Any:
    """The decoded payload that is kept, else a tensor's data, else the object itself."""
    if has_decoded(parametrised):
        return get_decoded(parametrised)
    return (
        parametrised.data
        if isinstance(parametrised, RequestInput | ResponseOutput)
        else parametrised
    )


def _save_decoded(parametrised: Parametrised, decoded: Any) -> None:
    if parametrised.parameters is None:
        parametrised.parameters = Parameters()
    # Straight into the instance: an attribute that is no field takes no part in dumps and comparisons.
    parametrised.parameters.__dict__[DecodedParameterName] = decoded


# -- which codec --


def content_type_of(parametrised: Any, metadata: Any = None) -> str | None:
    """An object's own content type, else its metadata's."""
    own = None if parametrised is None else parametrised.parameters
    if own is not None and own.content_type:
        return str(own.content_type)
    described = None if metadata is None else metadata.parameters
    return described.content_type or None if described is not None else None


def decode_request_input(
    request_input: RequestInput, metadata_inputs: Mapping[str, MetadataTensor] = _NO_TENSORS
) -> Any:
    """Decode an input by its own content type, else by that of the metadata tensor of its name, and keep the result.

    Without a codec, what was decoded earlier is returned, or None (`has_decoded` tells).
    """
    content_type = content_type_of(request_input, metadata_inputs.get(request_input.name))
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
    """Decode every input by its own codec, then the request by the request's (else the model's), and keep the result.

    Without a request codec, what was decoded earlier is returned, or None (`has_decoded` tells).
    """
    content_type = content_type_of(inference_request, model_settings)
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
    """Decode each input by its own or its metadata's content type.

    Args:
        skip_numbers: Leave alone the numeric tensors that would only become arrays.
    """
    for request_input in inference_request.inputs:
        number = skip_numbers and not is_bytes(request_input)
        if number and content_type_of(request_input, metadata_inputs.get(request_input.name)) in (
            None,
            "np",
        ):
            continue
        decode_request_input(request_input, metadata_inputs)


def _reads_numbers(codec: RequestCodecLike) -> bool:
    return bool(getattr(codec, "ReadsNumbers", False))


def encode_response_output(
    payload: Any,
    request_output: RequestOutput,
    metadata_outputs: Mapping[str, MetadataTensor] = _NO_TENSORS,
) -> ResponseOutput | None:
    """Encode a value as the output that was asked for; None when no codec is found.

    The codec is that of the output's content type, else of its metadata's, else the first that takes the value.
    """
    content_type = content_type_of(request_output, metadata_outputs.get(request_output.name))
    codec = find_input_codec(content_type) if content_type else _input_codec_of(payload)
    return None if codec is None else codec.encode_output(request_output.name, payload)


def _input_codec_of(payload: Any) -> InputCodecLike | None:
    """The first codec that takes a value.

    Raises:
        NotTogether: a list holds the rows of joined requests, some of which alone would get another codec.
    """
    codec = find_input_codec_by_payload(payload)
    members = joined_rows()
    if len(members) > 1 and isinstance(payload, list) and len(payload) == sum(members):
        start = 0
        for rows in members:
            if find_input_codec_by_payload(payload[start : start + rows]) is not codec:
                raise CannotBatch
            start += rows
    return codec


def encode_inference_response(
    payload: Any, model_settings: ModelSettings
) -> InferenceResponse | None:
    """Encode a value as a response; None when no codec is found.

    The codec is that of the model's content type if it takes the value, else the first that does.
    """
    content_type = content_type_of(None, model_settings)
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
        output = cls._only(response.outputs, "output")
        return get_decoded(output) if has_decoded(output) else cls.InputCodec.decode_output(output)

    @classmethod
    def encode_request(cls, payload: Any, **kwargs: Any) -> InferenceRequest:
        return InferenceRequest(
            parameters=Parameters(content_type=cls.ContentType),
            inputs=[cls.InputCodec.encode_input(f"{DefaultInputPrefix}1", payload, **kwargs)],
        )

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> Any:
        request_input = cls._only(request.inputs, "input")
        return (
            get_decoded(request_input)
            if has_decoded(request_input)
            else cls.InputCodec.decode_input(request_input)
        )

    @classmethod
    def _only(cls, tensors: list[Any], kind: str) -> Any:
        if len(tensors) != 1:
            raise CodecError(
                f"The '{cls.ContentType}' codec only supports a single {kind} tensor ({len(tensors)} were received)"
            )
        return tensors[0]
