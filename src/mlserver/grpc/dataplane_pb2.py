"""Messages of the inference protocol, for clients; they are kept apart from other libraries' messages of the same names."""

from ..wire.pb.dataplane_pb2 import *  # noqa: F403
from ..wire.pb.dataplane_pb2 import DESCRIPTOR as DESCRIPTOR
