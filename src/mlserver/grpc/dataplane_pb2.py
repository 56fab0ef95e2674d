"""Messages of the inference protocol, in a descriptor pool of their own."""

from ..wire.pb.dataplane_pb2 import *  # noqa: F403
from ..wire.pb.dataplane_pb2 import DESCRIPTOR as DESCRIPTOR
