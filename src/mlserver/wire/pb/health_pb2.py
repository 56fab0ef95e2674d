"""Messages of health.proto. Written by `make proto`."""

from . import enum_type, file_descriptor, message_class

DESCRIPTOR = file_descriptor("health.proto")
HealthCheckRequest = message_class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = message_class("grpc.health.v1.HealthCheckResponse")
