"""Which model the running code belongs to, for logs and metrics: two context variables and the block that sets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import ModelSettings

# Both raise LookupError outside of a model's code; the version is "" for a model without one.
model_name_var: ContextVar[str] = ContextVar("model_name")
model_version_var: ContextVar[str] = ContextVar("model_version")


@contextmanager
def model_context(model_settings: ModelSettings) -> Iterator[None]:
    """Run a block as that model's code. Blocks nest; tasks and `asyncio.to_thread` started inside belong to the model."""
    name_token = model_name_var.set(model_settings.name)
    version_token = model_version_var.set(model_settings.version or "")
    try:
        yield
    finally:
        # A stream that another task closes ends in that task's context, where there is nothing to set back.
        with suppress(ValueError):
            model_version_var.reset(version_token)
        with suppress(ValueError):
            model_name_var.reset(name_token)


def current_model() -> tuple[str, str] | None:
    """Name and version ("" for none) of the model whose code is running; None outside of any."""
    name = model_name_var.get(None)
    return None if name is None else (name, model_version_var.get(""))
