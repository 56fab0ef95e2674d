"""Imports a model's implementation, and before it the modules that its runtime names."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from ...errors import MLServerError, format_exception
from ...runtime_hooks import find_hooks
from ...settings import ModelSettings
from .model_failures import is_stop, log

if TYPE_CHECKING:
    from ...model import MLModel


def import_libraries(settings: ModelSettings) -> None:
    """Import the modules that the runtime's hooks list for a model."""
    for name in find_hooks(settings.implementation_).list_imports(settings):
        with suppress(ImportError):
            import_module(name)


def import_implementation(settings: ModelSettings) -> type[MLModel]:
    """Return the model's class. Raises `MLServerError` if it cannot be imported."""
    path = settings.implementation_
    try:
        implementation: type[MLModel] = settings.implementation
        return implementation
    except ModuleNotFoundError as exc:
        if exc.name and f"{path}.".startswith(f"{exc.name}."):
            raise MLServerError(
                f"Unknown implementation '{path}': no module named '{exc.name}'", 500
            ) from None
        raise MLServerError(
            f"Implementation '{path}' cannot be imported: {format_exception(exc)}", 500
        ) from None
    except MLServerError:
        raise
    except BaseException as error:
        if is_stop(error, asyncio.current_task()):
            raise
        log(f"Implementation '{path}' cannot be imported", error, logging.DEBUG)
        raise MLServerError(
            f"Implementation '{path}' cannot be imported: {format_exception(error)}", 500
        ) from error
