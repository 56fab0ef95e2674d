"""Messages of parts.proto. Written by `python -m proto.generate`."""

from . import enum_type, file_descriptor, message_class

DESCRIPTOR = file_descriptor("parts.proto")
ModelInferRequestParts = message_class("mlserver.ModelInferRequestParts")
