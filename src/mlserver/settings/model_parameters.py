"""The group `parameters` of a model's settings: location and execution."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ..errors import SettingsError
from .base import BaseSettings, Isolation

ENV_PREFIX_MODEL_SETTINGS = "MLSERVER_MODEL_"


class ModelParameters(BaseSettings):
    """Location and execution of a model. Unknown keys are stored in `model_extra`, for the runtime.

    Environment variables are `MLSERVER_MODEL_` and the field's name; they apply to every model
    whose settings omit the key.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_MODEL_SETTINGS, extra="allow")

    uri: str | None = None
    """File, folder or URI of the model; relative paths start at the folder of the settings file,
    which is also the default."""
    version: str | None = None
    """Version of the model; None = a model without versions."""
    environment_path: str | None = None
    """Folder of the Python environment of the model; None = the server's environment."""
    environment_tarball: str | None = None
    """Archive of a packed Python environment, unpacked into `environments_dir`; None = no
    archive."""
    inference_pool_gid: str | None = None
    """Id of the worker pool; models with equal ids share a pool. None = the default pool."""
    autogenerate_inference_pool_gid: bool = False
    """Run the model in its own worker pool, if `inference_pool_gid` is not set."""
    isolation: Isolation | None = None
    """`model` = a separate worker pool, so that the model's crashes, blocking calls and calls that
    hold the GIL do not affect other models; `shared` = the shared pool, also if module names in the
    folders of two custom runtimes are equal. None = shared, except for models that ship code and
    for such module names."""
    format: str | None = None
    """Format of the model file, for runtimes that support several; None = chosen by the runtime."""
    content_type: str | None = None
    """Content type of requests that do not specify one; None = raw tensors."""
    extra: dict[str, Any] = Field(default={})
    """Settings of the runtime."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.isolation == "model" and self.inference_pool_gid is not None:
            raise SettingsError(
                "parameters.isolation: expected no 'model' beside 'inference_pool_gid' "
                f"('{self.inference_pool_gid}'), which shares a pool; leave one of them out"
            )
        if self.autogenerate_inference_pool_gid and self.inference_pool_gid is None:
            self.inference_pool_gid = str(uuid.uuid4())
