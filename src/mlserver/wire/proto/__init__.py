"""Protobuf messages of the gRPC protocol <-> `mlserver.types`."""
