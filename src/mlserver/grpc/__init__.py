"""The gRPC front end, and what Python clients of it import: messages (`*_pb2`), stubs (`*_pb2_grpc`), `converters`."""

from .server import GRPCServer

__all__ = ["GRPCServer"]
