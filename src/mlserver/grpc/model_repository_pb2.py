"""Messages of the older repository service, for clients."""

from ..wire.pb.model_repository_pb2 import *  # noqa: F403
from ..wire.pb.model_repository_pb2 import DESCRIPTOR as DESCRIPTOR
