"""The response cache under the names of MLServer 1.x; it lives in `handlers.cache`."""

from .handlers.cache import LocalCache, ResponseCache

__all__ = ["LocalCache", "ResponseCache"]
