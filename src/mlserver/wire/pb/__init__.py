"""The protocol's protobuf messages, in a descriptor pool of their own. No conversions: those are in `wire.proto`.

A process may hold other clients of the same protocol (tritonclient, kserve), which register the same message names in
the process-wide pool. Keeping ours apart lets all of them live side by side. `python -m proto.generate` writes the
`*_pb2` modules.
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
    """The class of the message of this full name, with the messages declared in it as attributes."""
    descriptor = POOL.FindMessageTypeByName(name)
    made: type[Message] = message_factory.GetMessageClass(descriptor)
    for nested in descriptor.nested_types:
        if not hasattr(made, nested.name):  # protobuf's pure Python implementation leaves them out
            setattr(made, nested.name, message_class(nested.full_name))
    return made


def enum_type(name: str) -> EnumTypeWrapper:
    return EnumTypeWrapper(POOL.FindEnumTypeByName(name))
