"""Custom handlers under the name that authors of runtimes import; they live in `mlserver.custom_routes`."""

from ..custom_routes import (
    CustomHandler,
    custom_handler,
    get_custom_handlers,
    register_custom_handler,
)

__all__ = ["CustomHandler", "custom_handler", "get_custom_handlers", "register_custom_handler"]
