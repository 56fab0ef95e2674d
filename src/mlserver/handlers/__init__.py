"""The data plane and the model repository handlers, which all front ends call. No protocol.

`custom_handler` and `get_custom_handlers` are public names of MLServer 1.x;
`mlserver.custom_routes` defines them.
"""

from ..custom_routes import custom_handler, get_custom_handlers
from .dataplane import DataPlane
from .model_repository import ModelRepositoryHandlers

__all__ = ["DataPlane", "ModelRepositoryHandlers", "custom_handler", "get_custom_handlers"]
