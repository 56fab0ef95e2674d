"""Context variables that name the model whose code is running, for logs and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .log_context import variable as log_context_variable

if TYPE_CHECKING:
    from .log_context import LogContext
    from .settings import ModelSettings

# Unset outside of a model's code; the version is "" for a model without one.
model_name_var: ContextVar[str] = ContextVar("model_name")
model_version_var: ContextVar[str] = ContextVar("model_version")
_joined_rows: ContextVar[Sequence[int]] = ContextVar("joined_rows", default=())


def joined_rows() -> Sequence[int]:
    """Return the rows of each request in the batch that `predict` runs on; () = one request.

    For runtimes whose results depend, if only in the last bit, on how many rows are computed
    together.
    """
    return _joined_rows.get()


class model_context:  # noqa: N801 - a public name of 1.x, used like a function
    """Context manager that runs a block as a model's code.

    Blocks nest. Tasks and threads (`asyncio.to_thread`) started inside belong to the model as well.
    A class is cheaper than `@contextmanager`, and each request enters one.
    """

    __slots__ = (
        "_joined",
        "_joined_token",
        "_log",
        "_log_token",
        "_name",
        "_name_token",
        "_version",
        "_version_token",
    )

    def __init__(
        self,
        model_settings: ModelSettings,
        joined: Sequence[int] = (),
        log: LogContext | None = None,
    ) -> None:
        self._joined = joined
        self._log = log
        self._name = model_settings.name
        self._version = model_settings.version or ""

    def __enter__(self) -> None:
        self._name_token = model_name_var.set(self._name)
        self._version_token = model_version_var.set(self._version)
        self._joined_token = _joined_rows.set(self._joined)
        self._log_token = log_context_variable.set(self._log)

    def __exit__(self, *exception: object) -> None:
        # A stream closed by another task exits in that task's context, where the tokens are not
        # valid.
        try:
            log_context_variable.reset(self._log_token)
            _joined_rows.reset(self._joined_token)
            model_version_var.reset(self._version_token)
            model_name_var.reset(self._name_token)
        except ValueError:
            pass


def current_model() -> tuple[str, str] | None:
    """Return name and version ("" for none) of the model whose code is running.

    None outside of a model's code.
    """
    name = model_name_var.get(None)
    return None if name is None else (name, model_version_var.get(""))
