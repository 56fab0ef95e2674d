"""Codecs: Python values <-> the protocol's tensors.

An *input codec* converts one tensor, a *request codec* a whole request or response. Both are
selected by content type, payload or type hint (`base`). The built-in codecs are registered here;
NumPy and pandas are imported on first use of theirs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import (
    InputCodec,
    InputCodecLike,
    RequestCodec,
    RequestCodecLike,
    register_input_codec,
    register_lazy_input_codec,
    register_lazy_request_codec,
    register_request_codec,
)
from .base64 import Base64Codec
from .datetime import DatetimeCodec
from .decorator import decode_args
from .errors import CodecError
from .json import JsonColumnCodec
from .string import StringCodec, StringRequestCodec
from .utils import (
    DecodedParameterName,
    decode_inference_request,
    decode_request_input,
    encode_inference_response,
    encode_response_output,
    get_decoded,
    get_decoded_or_raw,
    has_decoded,
)

if TYPE_CHECKING:
    from .numpy import NumpyCodec, NumpyRequestCodec
    from .pandas import PandasCodec

# The first codec that accepts a payload is used: an empty list is a list of str.
register_input_codec(StringCodec)
register_lazy_input_codec("np", f"{__name__}.numpy", "NumpyCodec", library="numpy")
register_input_codec(Base64Codec)
register_input_codec(DatetimeCodec)
register_input_codec(JsonColumnCodec)

register_request_codec(StringRequestCodec)
register_lazy_request_codec("np", f"{__name__}.numpy", "NumpyRequestCodec", library="numpy")
register_lazy_request_codec("pd", f"{__name__}.pandas", "PandasCodec", library="pandas")

_LAZY_MODULES = {"NumpyCodec": "numpy", "NumpyRequestCodec": "numpy", "PandasCodec": "pandas"}

__all__ = [
    "Base64Codec",
    "CodecError",
    "DatetimeCodec",
    "DecodedParameterName",
    "InputCodec",
    "InputCodecLike",
    "NumpyCodec",
    "NumpyRequestCodec",
    "PandasCodec",
    "RequestCodec",
    "RequestCodecLike",
    "StringCodec",
    "StringRequestCodec",
    "decode_args",
    "decode_inference_request",
    "decode_request_input",
    "encode_inference_response",
    "encode_response_output",
    "get_decoded",
    "get_decoded_or_raw",
    "has_decoded",
    "register_input_codec",
    "register_request_codec",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
