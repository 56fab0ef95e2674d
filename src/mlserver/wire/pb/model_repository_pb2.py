"""Messages of model_repository.proto. Written by `make proto`."""

from . import enum_type, file_descriptor, message_class

DESCRIPTOR = file_descriptor("model_repository.proto")
RepositoryIndexRequest = message_class("inference.model_repository.RepositoryIndexRequest")
RepositoryIndexResponse = message_class("inference.model_repository.RepositoryIndexResponse")
RepositoryModelLoadRequest = message_class("inference.model_repository.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = message_class("inference.model_repository.RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = message_class("inference.model_repository.RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = message_class("inference.model_repository.RepositoryModelUnloadResponse")
