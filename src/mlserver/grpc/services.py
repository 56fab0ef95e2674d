"""Server handlers and client stubs, built from service descriptors."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from ..errors import InvalidPayload

Behavior = Callable[..., Any]
# (client streaming, server streaming) -> gRPC's name of the kind.
_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
serialize = methodcaller("SerializeToString")


def get_kind(method: MethodDescriptor) -> str:
    """Return unary_unary, unary_stream, stream_unary or stream_stream."""
    return _KINDS[method.client_streaming, method.server_streaming]


def to_snake_case(name: str) -> str:
    """Convert `ModelStreamInfer` to `model_stream_infer`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def create_generic_handler(
    service: ServiceDescriptor,
    servicer: Any,
    wrap: Callable[[MethodDescriptor, Behavior], Behavior] | None = None,
    name: str | None = None,
    serialized_methods: Collection[str] = (),
) -> grpc.GenericRpcHandler:
    """Return the handler of the methods that `servicer` defines (protocol's name or snake case).

    Args:
        wrap: Wraps each method. Wrapped methods receive an `InvalidPayload` for a message that
            cannot be parsed.
        name: Full name of the service; None = as in the descriptor.
        serialized_methods: Methods that receive and return serialized messages.
    """
    handlers = {}
    for method in service.methods:
        behavior = getattr(servicer, method.name, None) or getattr(
            servicer, to_snake_case(method.name), None
        )
        if behavior is None:
            continue
        make = getattr(grpc, f"{get_kind(method)}_rpc_method_handler")
        parse = _get_class(method.input_type).FromString
        deserialize = parse if wrap is None else _return_parse_errors(parse)
        is_serialized = method.name in serialized_methods
        if wrap is not None:
            behavior = wrap(method, behavior)
        codecs = {"request_deserializer": deserialize, "response_serializer": serialize}
        handlers[method.name] = make(behavior, **({} if is_serialized else codecs))
    return grpc.method_handlers_generic_handler(name or service.full_name, handlers)


def _return_parse_errors(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return the parser's errors as values: for exceptions, gRPC logs a traceback."""

    def parse_or_error(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return InvalidPayload(f"Invalid message: {error}")

    return parse_or_error


class Servicer:
    """Base class of servicers."""


class Stub:
    """Client of one service, with a callable per method."""

    service: ServiceDescriptor

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        for method in self.service.methods:
            make = getattr(channel, get_kind(method))
            call = make(
                f"/{self.service.full_name}/{method.name}",
                request_serializer=serialize,
                response_deserializer=_get_class(method.output_type).FromString,
            )
            self.__dict__[method.name] = call

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _get_class(message: Any) -> Any:
    return message_factory.GetMessageClass(message)
