"""What every front end calls: the data plane and the model repository, free of any protocol.

`custom_handler` and its kin are listed here for authors of runtimes; they live in `mlserver.custom_routes`.
"""

from ..custom_routes import custom_handler, get_custom_handlers
from .dataplane import DataPlane
from .model_repository import ModelRepositoryHandlers

__all__ = ["DataPlane", "ModelRepositoryHandlers", "custom_handler", "get_custom_handlers"]
