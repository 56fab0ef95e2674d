"""Messages of reflection.proto. Written by `make proto`."""

from . import enum_type, file_descriptor, message_class

DESCRIPTOR = file_descriptor("reflection.proto")
ServerReflectionRequest = message_class("grpc.reflection.v1.ServerReflectionRequest")
ExtensionRequest = message_class("grpc.reflection.v1.ExtensionRequest")
ServerReflectionResponse = message_class("grpc.reflection.v1.ServerReflectionResponse")
FileDescriptorResponse = message_class("grpc.reflection.v1.FileDescriptorResponse")
ExtensionNumberResponse = message_class("grpc.reflection.v1.ExtensionNumberResponse")
ListServiceResponse = message_class("grpc.reflection.v1.ListServiceResponse")
ServiceResponse = message_class("grpc.reflection.v1.ServiceResponse")
ErrorResponse = message_class("grpc.reflection.v1.ErrorResponse")
