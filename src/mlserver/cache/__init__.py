"""The response cache: a store, and the pipeline stage that uses it."""

from .response_cache import LocalCache, ResponseCache

__all__ = ["LocalCache", "ResponseCache"]
