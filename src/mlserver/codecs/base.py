"""Interfaces of codecs, and the registry that selects one by content type, payload or type hint.

Codecs that need a heavy library are registered as `LazyCodec` and imported when their content type
is requested. Before the library is imported, no payload and no type hint can be of its types, so a
search by payload or hint imports nothing.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Generic, ParamSpec, TypeAlias, TypeVar

from ..types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from .hints import fits

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("mlserver")


def deprecated(reason: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a function as deprecated: each call logs a warning with the reason."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            logger.warning("DEPRECATED: %s", reason)
            return function(*args, **kwargs)

        return wrapper

    return decorate


class InputCodec:
    """Converts between one tensor and one Python value.

    A subclass defines `can_encode`, `encode_output` and `decode_input`. `encode_input` and
    `decode_output` call these and may be overridden.

    Attributes:
        ContentType: The codec's name in requests and metadata.
        TypeHint: The type of the value, for `decode_args`.
        OtherHints: Further type hints of the codec.
    """

    ContentType: ClassVar[str] = ""
    TypeHint: ClassVar[Any] = type(None)
    OtherHints: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether `encode_output` accepts a value."""
        return False

    @classmethod
    def encode_output(cls, name: str, payload: Any, **kwargs: Any) -> ResponseOutput:
        """Return the output tensor of a value."""
        raise NotImplementedError(f"{cls.__name__} does not encode")

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> Any:
        """Return the value of an input tensor."""
        raise NotImplementedError(f"{cls.__name__} does not decode")

    @classmethod
    def encode_input(cls, name: str, payload: Any, **kwargs: Any) -> RequestInput:
        """Return the input tensor of a value, for clients."""
        return RequestInput.build(dict(cls.encode_output(name, payload, **kwargs)))

    @classmethod
    def decode_output(cls, response_output: ResponseOutput) -> Any:
        """Return the value of an output tensor, for clients."""
        return cls.decode_input(RequestInput.build(dict(response_output)))

    @classmethod
    @deprecated("InputCodec.encode() is now called encode_output()")
    def encode(cls, name: str, payload: Any) -> ResponseOutput:
        return cls.encode_output(name, payload)

    @classmethod
    @deprecated("InputCodec.decode() is now called decode_input()")
    def decode(cls, request_input: RequestInput) -> Any:
        return cls.decode_input(request_input)


class RequestCodec:
    """Converts between a whole request or response and one Python value.

    Attributes:
        ContentType: The codec's name in requests and model settings.
        TypeHint: The type of the value.
        ReadsNumbers: The codec reads numeric tensors itself; they are not decoded before.
    """

    ContentType: ClassVar[str] = ""
    TypeHint: ClassVar[Any] = type(None)
    OtherHints: ClassVar[tuple[Any, ...]] = ()
    ReadsNumbers: ClassVar[bool] = False

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether `encode_response` accepts a value."""
        return False

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Any, model_version: str | None = None, **kwargs: Any
    ) -> InferenceResponse:
        """Return the response of a value."""
        raise NotImplementedError(f"{cls.__name__} does not encode responses")

    @classmethod
    def decode_response(cls, response: InferenceResponse) -> Any:
        """Return the value of a response, for clients."""
        raise NotImplementedError(f"{cls.__name__} does not decode responses")

    @classmethod
    def encode_request(cls, payload: Any, **kwargs: Any) -> InferenceRequest:
        """Return the request of a value, for clients."""
        raise NotImplementedError(f"{cls.__name__} does not encode requests")

    @classmethod
    def decode_request(cls, request: InferenceRequest) -> Any:
        """Return the value of a request."""
        raise NotImplementedError(f"{cls.__name__} does not decode requests")

    @classmethod
    @deprecated("RequestCodec.encode() is now called encode_response()")
    def encode(
        cls, model_name: str, payload: Any, model_version: str | None = None
    ) -> InferenceResponse:
        return cls.encode_response(model_name, payload, model_version)

    @classmethod
    @deprecated("RequestCodec.decode() is now called decode_request()")
    def decode(cls, request: InferenceRequest) -> Any:
        return cls.decode_request(request)


InputCodecLike: TypeAlias = type[InputCodec] | InputCodec
RequestCodecLike: TypeAlias = type[RequestCodec] | RequestCodec
C = TypeVar("C", InputCodecLike, RequestCodecLike)


@dataclass(frozen=True, slots=True)
class LazyCodec:
    """A codec that is imported on first use, and the library whose types it converts."""

    module: str
    name: str
    library: str

    def load(self) -> Any:
        """Import the codec."""
        return getattr(import_module(self.module), self.name)


class _Registry(Generic[C]):
    """Codecs by content type, in order of registration; the first match is used."""

    def __init__(self) -> None:
        self._codecs: dict[str, C | LazyCodec] = {}

    def add(self, content_type: str, codec: C | LazyCodec) -> None:
        self._codecs[content_type] = codec

    def by_content_type(self, content_type: str) -> C | None:
        codec = self._codecs.get(content_type)
        if isinstance(codec, LazyCodec):
            codec = codec.load()
            self._codecs[content_type] = codec
        return codec

    def by_payload(self, payload: Any) -> C | None:
        return next((codec for codec in self._imported() if codec.can_encode(payload)), None)

    def by_type_hint(self, hint: Any) -> C | None:
        codec: C
        if hint in (None, type(None)):
            return None
        for codec in self._imported():
            hints = (codec.TypeHint, *getattr(codec, "OtherHints", ()))
            if any(fits(hint, codec_hint) for codec_hint in hints):
                return codec
        return None

    def find(self, content_type: str | None, payload: Any, type_hint: Any) -> C | None:
        if content_type:
            return self.by_content_type(content_type)
        return self.by_payload(payload) if payload is not None else self.by_type_hint(type_hint)

    def _imported(self) -> Iterator[C]:
        for content_type, codec in list(self._codecs.items()):
            if not isinstance(codec, LazyCodec) or codec.library in sys.modules:
                imported = self.by_content_type(content_type)
                if imported is not None:
                    yield imported


_inputs: _Registry[InputCodecLike] = _Registry()
_requests: _Registry[RequestCodecLike] = _Registry()

InputCodecT = TypeVar("InputCodecT", bound=InputCodecLike)
RequestCodecT = TypeVar("RequestCodecT", bound=RequestCodecLike)


def register_input_codec(codec: InputCodecT) -> InputCodecT:
    """Register an input codec: a class (also as a decorator) or an instance.

    It replaces an earlier codec of the same content type.
    """
    _inputs.add(codec.ContentType, codec)
    return codec


def register_request_codec(codec: RequestCodecT) -> RequestCodecT:
    """Register a request codec: a class (also as a decorator) or an instance.

    It replaces an earlier codec of the same content type.
    """
    _requests.add(codec.ContentType, codec)
    return codec


def register_lazy_input_codec(content_type: str, module: str, name: str, library: str) -> None:
    """Register an input codec that is imported on first use (see the module's docstring)."""
    _inputs.add(content_type, LazyCodec(module, name, library))


def register_lazy_request_codec(content_type: str, module: str, name: str, library: str) -> None:
    """Register a request codec that is imported on first use (see the module's docstring)."""
    _requests.add(content_type, LazyCodec(module, name, library))


def find_input_codec(
    content_type: str | None = None, payload: Any = None, type_hint: Any = None
) -> InputCodecLike | None:
    """Return the codec of a content type, else of a payload, else of a type hint; else None."""
    return _inputs.find(content_type, payload, type_hint)


def find_input_codec_by_payload(payload: Any) -> InputCodecLike | None:
    """Return the first input codec that accepts a payload, else None."""
    return _inputs.by_payload(payload)


def find_input_codec_by_type_hint(type_hint: Any) -> InputCodecLike | None:
    """Return the first input codec of a type hint, else None."""
    return _inputs.by_type_hint(type_hint)


def find_request_codec(
    content_type: str | None = None, payload: Any = None, type_hint: Any = None
) -> RequestCodecLike | None:
    """Return the codec of a content type, else of a payload, else of a type hint; else None."""
    return _requests.find(content_type, payload, type_hint)


def find_request_codec_by_payload(payload: Any) -> RequestCodecLike | None:
    """Return the first request codec that accepts a payload, else None."""
    return _requests.by_payload(payload)


def find_request_codec_by_type_hint(type_hint: Any) -> RequestCodecLike | None:
    """Return the first request codec of a type hint, else None."""
    return _requests.by_type_hint(type_hint)
