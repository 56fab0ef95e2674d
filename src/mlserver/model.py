"""MLModel, the base class of runtimes and custom models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .codecs.base import InputCodecLike, RequestCodecLike
from .codecs.errors import CodecNotFound, type_name
from .codecs.utils import (
    decode_inference_request,
    decode_request_input,
    encode_inference_response,
    encode_response_output,
    get_decoded,
    has_decoded,
)
from .custom_routes import Route, get_handler_routes
from .model_threads import call_method, get_threads
from .types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
)

if TYPE_CHECKING:
    from .settings import ModelSettings

T = TypeVar("T")


class MLModel:
    """Base class of models; subclasses override `load`, `predict` and further methods.

    `predict`, `predict_stream` and custom handlers may be coroutines, which run on the worker's
    event loop, or plain functions, which run in threads of the model.

    Attributes:
        ready: Whether the model is ready; set by the server from the results of `load` and
            `unload`.
        row_wise: Whether predictions of rows joined along the first dimension equal those of the
            parts, so that the server may batch by default. `load` may set it for the instance.
        max_concurrency: Calls that run at a time in each worker, if the settings do not say; None =
            40 for a plain `predict`, 64 for a coroutine. `load` may set it for the instance.
        trial_results: Plain values that `load` has found out by trials and may set, so that its
            loads in other workers need not repeat them. Before `load`, those of another worker that
            has loaded the same model; None = no other has. `load` checks that they fit its files.
    """

    row_wise: bool = False
    max_concurrency: int | None = None
    trial_results: dict[str, Any] | None = None

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._metadata_inputs = _index_by_name(settings.inputs)
        self._metadata_outputs = _index_by_name(settings.outputs)
        self.ready = False

    # -- methods for runtimes to override --

    async def load(self) -> bool:
        """Load the model; return whether it is ready."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the response to one request."""
        raise NotImplementedError("predict() method not implemented")

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """Yield the responses to a stream of requests; by default, `predict` of the first."""
        async for payload in payloads:
            yield await call_method(self, self.predict, payload)
            return

    async def unload(self) -> bool:
        """Release the resources of `load`; return False if the model is still ready."""
        return True

    async def metadata(self) -> MetadataModelResponse:
        """Return the model's metadata: its settings, with the current inputs and outputs."""
        parameters = self._settings.parameters
        return MetadataModelResponse(
            name=self.name,
            versions=self._settings.versions,
            platform=self._settings.platform,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=None
            if parameters is None
            else Parameters(content_type=parameters.content_type),
        )

    async def resolve_source(self, uri: str) -> str:
        """Return the URI with the version that an alias currently points to.

        If `parameters.extra.follow` is set, the server polls this and loads new versions.

        Raises:
            MLServerError: the registry is unreachable, or the model does not exist.
        """
        return uri

    def routes(self) -> list[Route]:
        """Return the model's own HTTP routes; by default, those of its custom handlers."""
        return get_handler_routes(self)

    async def call_in_thread(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Run a function that blocks in a thread of the model; return its result.

        Up to `max_concurrency` functions run at a time, further ones wait in the order of arrival.
        A function that runs cannot be stopped: if the caller is cancelled, the cancellation takes
        effect when the function returns, and its place is taken until then.
        """
        return await get_threads(self).call(partial(function, *args, **options))

    # -- what it is --

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def version(self) -> str | None:
        return self._settings.parameters.version if self._settings.parameters else None

    @property
    def settings(self) -> ModelSettings:
        return self._settings

    @property
    def inputs(self) -> list[MetadataTensor] | None:
        """Input tensors; their content types apply to inputs of the same name."""
        return self._settings.inputs

    @inputs.setter
    def inputs(self, value: list[MetadataTensor]) -> None:
        self._settings.inputs = value
        self._metadata_inputs = _index_by_name(value)

    @property
    def outputs(self) -> list[MetadataTensor] | None:
        """Output tensors; their content types apply to outputs of the same name."""
        return self._settings.outputs

    @outputs.setter
    def outputs(self, value: list[MetadataTensor]) -> None:
        self._settings.outputs = value
        self._metadata_outputs = _index_by_name(value)

    # -- Python values <-> tensors --

    def decode(
        self, request_input: RequestInput, default_codec: InputCodecLike | None = None
    ) -> Any:
        """Decode an input by its content type, its metadata's or `default_codec`; else its data."""
        decode_request_input(request_input, self._metadata_inputs)
        if has_decoded(request_input):
            return get_decoded(request_input)
        return default_codec.decode_input(request_input) if default_codec else request_input.data

    def decode_request(
        self, inference_request: InferenceRequest, default_codec: RequestCodecLike | None = None
    ) -> Any:
        """Decode a request by its content type, the model's, or `default_codec`; else itself."""
        decode_inference_request(inference_request, self._settings, self._metadata_inputs)
        if has_decoded(inference_request):
            return get_decoded(inference_request)
        return (
            default_codec.decode_request(inference_request) if default_codec else inference_request
        )

    def encode(
        self,
        payload: Any,
        request_output: RequestOutput,
        default_codec: InputCodecLike | None = None,
    ) -> ResponseOutput:
        """Encode a value as the requested output.

        Raises:
            CodecNotFound: neither content type, nor codec for the value's type, nor
                `default_codec`.
        """
        encoded = encode_response_output(payload, request_output, self._metadata_outputs)
        if encoded is not None:
            return encoded
        if default_codec is None:
            raise CodecNotFound(request_output.name, type_name(type(payload)))
        return default_codec.encode_output(request_output.name, payload)

    def encode_response(
        self, payload: Any, default_codec: RequestCodecLike | None = None
    ) -> InferenceResponse:
        """Encode a value as the response.

        Raises:
            CodecNotFound: neither codec for the value's type nor `default_codec`.
        """
        encoded = encode_inference_response(payload, self._settings)
        if encoded is not None:
            return encoded
        if default_codec is None:
            raise CodecNotFound(self.name, type_name(type(payload)), is_request=True)
        return default_codec.encode_response(self.name, payload, self.version)


def _index_by_name(tensors: list[MetadataTensor] | None) -> dict[str, MetadataTensor]:
    return {tensor.name: tensor for tensor in tensors or []}
