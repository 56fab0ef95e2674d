"""Settings for cross-origin requests."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from .base import ENV_PREFIX_SETTINGS, BaseSettings


class CORSSettings(BaseSettings):
    """Cross-origin resource sharing (CORS) of the REST port."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_SETTINGS)

    allow_origins: list[str] = []
    """Origins that may send requests, such as `https://example.org`; `*` = all."""
    allow_origin_regex: str | None = None
    """Regular expression that matches further allowed origins as a whole; None = no further
    ones."""
    allow_credentials: bool = False
    """Whether browsers may send cookies and authorization headers."""
    allow_methods: list[str] = ["GET"]
    """HTTP methods that other origins may use; `*` = all."""
    allow_headers: list[str] = []
    """Request headers that other origins may set; `*` = all."""
    expose_headers: list[str] = []
    """Response headers that scripts of other origins may read."""
    max_age: int = 600
    """Seconds for which a browser may cache the response to a preflight request."""
