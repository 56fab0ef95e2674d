"""The protocol's protobuf messages, in a descriptor pool of their own; conversions: `wire.proto`.

Other clients of the protocol in the same process (tritonclient, kserve) register the same message
names in the process-wide pool, where a second registration fails. `make proto` writes
the `*_pb2` modules.
"""

from __future__ import annotations

from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from .descriptors_pb2 import FILES

POOL = DescriptorPool()
for _file in FILES:
    POOL.AddSerializedFile(_file)


def file_descriptor(name: str) -> FileDescriptor:
    return POOL.FindFileByName(name)


def message_class(name: str) -> type[Message]:
    """Return the class of a message by full name, with nested messages as attributes."""
    descriptor = POOL.FindMessageTypeByName(name)
    result: type[Message] = message_factory.GetMessageClass(descriptor)
    for nested in descriptor.nested_types:
        if not hasattr(result, nested.name):  # missing in the pure Python implementation
            setattr(result, nested.name, message_class(nested.full_name))
    return result


def enum_type(name: str) -> EnumTypeWrapper:
    return EnumTypeWrapper(POOL.FindEnumTypeByName(name))
