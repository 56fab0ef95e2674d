"""`decode_args`: converts the arguments and the result of `predict` by its type hints."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from ..types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    RequestInput,
    ResponseOutput,
)
from .base import (
    InputCodecLike,
    RequestCodec,
    RequestCodecLike,
    find_input_codec_by_type_hint,
    find_request_codec_by_type_hint,
)
from .errors import CodecNotFound, InputsNotFound, OutputNotFound, type_name
from .hints import unwrap_optional
from .utils import DefaultOutputPrefix, decode_inputs

_NO_TENSORS: Mapping[str, MetadataTensor] = {}


@dataclass(frozen=True, slots=True)
class _Argument:
    """An argument of `predict`; one of the two codecs is set."""

    hint: Any
    nullable: bool
    has_default: bool
    input_codec: InputCodecLike | None
    request_codec: RequestCodecLike | None


class SignatureCodec(RequestCodec):
    """Converts requests to keyword arguments of a function, and its result to a response.

    Raises:
        CodecNotFound: (from the constructor) an argument has no type hint, or one without a codec.
    """

    def __init__(self, predict: Callable[..., Any]) -> None:
        hints = get_type_hints(predict, include_extras=True)
        self._result = hints.get("return", inspect.Parameter.empty)
        parameters = list(inspect.signature(predict).parameters.values())[1:]  # without self
        self._arguments = {
            parameter.name: _build_argument(parameter, hints.get(parameter.name))
            for parameter in parameters
            if parameter.kind
            not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }
        self._rest = next(
            (name for name, arg in self._arguments.items() if arg.request_codec), None
        )

    def decode_request(  # type: ignore[override]
        self, request: InferenceRequest, metadata_inputs: Mapping[str, MetadataTensor] = _NO_TENSORS
    ) -> dict[str, Any]:
        """Return the keyword arguments.

        An input is the argument of its name; all other inputs together are the DataFrame.

        Raises:
            InputsNotFound: an input without an argument, or an argument without an input.
        """
        values: dict[str, Any] = {}
        others: list[RequestInput] = []
        for request_input in request.inputs:
            argument = self._arguments.get(request_input.name)
            if argument is None or argument.input_codec is None:
                others.append(request_input)
            else:
                values[request_input.name] = argument.input_codec.decode_input(request_input)
        if others and self._rest is not None:
            values[self._rest] = self._decode_rest(request, others, metadata_inputs)
        self._check(values, others if self._rest is None else [])
        return values

    def encode_response(  # type: ignore[override]
        self, model_name: str, payload: Any, model_version: str | None = None, **kwargs: Any
    ) -> InferenceResponse:
        """Return the result as outputs `output-0`, `output-1`, ...; a DataFrame as its columns.

        Raises:
            OutputNotFound: a value is not of the type of the return hint.
        """
        outputs: list[ResponseOutput] = []
        for index, (value, hint) in enumerate(self._split_result(payload)):
            if value is not None:
                outputs.extend(self._encode_value(index, value, hint))
        return InferenceResponse(
            model_name=model_name, model_version=model_version, outputs=outputs
        )

    def _decode_rest(
        self,
        request: InferenceRequest,
        others: list[RequestInput],
        metadata_inputs: Mapping[str, MetadataTensor],
    ) -> Any:
        codec = self._arguments[str(self._rest)].request_codec
        assert codec is not None
        rest = InferenceRequest(parameters=request.parameters, inputs=others)
        decode_inputs(rest, metadata_inputs, skip_numbers=getattr(codec, "ReadsNumbers", False))
        return codec.decode_request(rest)

    def _check(self, values: dict[str, Any], unexpected: list[RequestInput]) -> None:
        missing = []
        for name, argument in self._arguments.items():
            if name not in values and not argument.has_default:
                if argument.nullable:
                    values[name] = None
                else:
                    missing.append(name)
        if unexpected or missing:
            known = {name: argument.hint for name, argument in self._arguments.items()}
            raise InputsNotFound([item.name for item in unexpected], missing, known)

    def _split_result(self, payload: Any) -> list[tuple[Any, Any]]:
        """Return the values of a result, each with its hint."""
        if payload is None:
            return []
        hint, _ = unwrap_optional(self._result)
        if get_origin(hint) is not tuple:
            return [(payload, hint)]
        hints = get_args(hint)
        values = payload if isinstance(payload, tuple) else (payload,)
        if len(hints) == 2 and hints[1] is Ellipsis:
            hints = hints[:1] * len(values)
        if len(values) != len(hints):
            raise OutputNotFound(min(len(values), len(hints)), type(payload), hints)
        return list(zip(values, hints, strict=True))

    def _encode_value(self, index: int, value: Any, hint: Any) -> list[ResponseOutput]:
        inner_hint, _ = unwrap_optional(hint)
        input_codec = find_input_codec_by_type_hint(inner_hint)
        if input_codec is not None and input_codec.can_encode(value):
            return [input_codec.encode_output(f"{DefaultOutputPrefix}{index}", value)]
        request_codec = find_request_codec_by_type_hint(inner_hint)
        if request_codec is not None and request_codec.can_encode(value):
            return request_codec.encode_response("", value).outputs
        raise OutputNotFound(index, type(value), [] if hint is inspect.Parameter.empty else [hint])


def decode_args(predict: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a `predict` that takes and returns Python values.

    Inputs are matched to arguments by name and decoded by the arguments' type hints: `np.ndarray`,
    `list[str]`, `list[bytes]`, `list[datetime]`, `pd.DataFrame` (all inputs without an argument of
    their name), or the type of a custom codec. An input of an argument `X | None` with a default is
    optional. The result is encoded by the return hint; a tuple is several outputs.

    Raises:
        CodecNotFound: (when decorating) a hint has no codec.
    """
    codec = SignatureCodec(predict)

    def decode(model: Any, request: InferenceRequest) -> dict[str, Any]:
        return codec.decode_request(request, {tensor.name: tensor for tensor in model.inputs or []})

    def encode(model: Any, result: Any) -> InferenceResponse:
        return codec.encode_response(model.name, result, model.version)

    if inspect.iscoroutinefunction(predict):

        @functools.wraps(predict)
        async def wrapper(model: Any, payload: InferenceRequest) -> InferenceResponse:
            return encode(model, await predict(model, **decode(model, payload)))

        return wrapper

    @functools.wraps(predict)
    def sync_wrapper(model: Any, payload: InferenceRequest) -> InferenceResponse:
        return encode(model, predict(model, **decode(model, payload)))

    return sync_wrapper


def _build_argument(parameter: inspect.Parameter, hint: Any) -> _Argument:
    inner_hint, nullable = unwrap_optional(hint)
    input_codec = find_input_codec_by_type_hint(inner_hint)
    request_codec = None if input_codec else find_request_codec_by_type_hint(inner_hint)
    if input_codec is None and request_codec is None:
        shown = "unknown: it has no type hint" if hint is None else type_name(hint)
        raise CodecNotFound(parameter.name, shown, is_input=True)
    return _Argument(
        hint, nullable, parameter.default is not inspect.Parameter.empty, input_codec, request_codec
    )
