"""From a service's descriptor to what gRPC wants: handlers on the server's side, callables on the client's."""

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

Behaviour = Callable[..., Any]
# (requests are a stream, responses are a stream) -> gRPC's word for it.
_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
serialize = methodcaller("SerializeToString")


def kind_of(method: MethodDescriptor) -> str:
    """unary_unary, unary_stream, stream_unary or stream_stream."""
    return _KINDS[method.client_streaming, method.server_streaming]


def snake_case(name: str) -> str:
    """ModelStreamInfer -> model_stream_infer."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def generic_handler(
    service: ServiceDescriptor,
    servicer: Any,
    wrap: Callable[[MethodDescriptor, Behaviour], Behaviour] | None = None,
    name: str | None = None,
    in_bytes: Collection[str] = (),
) -> grpc.GenericRpcHandler:
    """The handler of all methods that `servicer` has, under the protocol's name or in snake case.

    Args:
        wrap: Put around each method, which then gets an `InvalidPayload` in place of a message that cannot be parsed.
        name: Serve under another full name than the service's own.
        in_bytes: Methods that read and write serialized messages.
    """
    handlers = {}
    for method in service.methods:
        behaviour = getattr(servicer, method.name, None) or getattr(
            servicer, snake_case(method.name), None
        )
        if behaviour is None:
            continue
        make = getattr(grpc, f"{kind_of(method)}_rpc_method_handler")
        parse = _class(method.input_type).FromString
        parsed = parse if wrap is None else _forgiving(parse)
        own = method.name in in_bytes
        handlers[method.name] = make(
            behaviour if wrap is None else wrap(method, behaviour),
            request_deserializer=None if own else parsed,
            response_serializer=None if own else serialize,
        )
    return grpc.method_handlers_generic_handler(name or service.full_name, handlers)


def _forgiving(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """gRPC would log a traceback and answer UNKNOWN if parsing raised."""

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return InvalidPayload(f"Invalid message: {error}")

    return parsed


class Servicer:
    """Base of the servicers that users write."""


class Stub:
    """A client's view of one service: a callable per method, made from the descriptor."""

    service: ServiceDescriptor

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        for method in self.service.methods:
            make = getattr(channel, kind_of(method))
            call = make(
                f"/{self.service.full_name}/{method.name}",
                request_serializer=serialize,
                response_deserializer=_class(method.output_type).FromString,
            )
            self.__dict__[method.name] = call

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _class(message: Any) -> Any:
    return message_factory.GetMessageClass(message)
