"""gRPC front end, and modules for Python clients: `*_pb2`, `*_pb2_grpc`, `converters`."""

from .server import GRPCServer

__all__ = ["GRPCServer"]
