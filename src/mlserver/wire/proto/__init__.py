"""The messages of the gRPC protocol: bytes and protobuf messages to requests and responses."""
