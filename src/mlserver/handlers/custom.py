"""Public names of MLServer 1.x for custom handlers; `mlserver.custom_routes` defines them."""

from ..custom_routes import (
    CustomHandler,
    custom_handler,
    get_custom_handlers,
    register_custom_handler,
)

__all__ = ["CustomHandler", "custom_handler", "get_custom_handlers", "register_custom_handler"]
