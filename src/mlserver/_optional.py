"""Libraries that a plain installation does not have: asked for here, so that what is missing is said in one way."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UnsupportedMediaType


class NotInstalled(UnsupportedMediaType):
    """Something needs a library that is not installed; the text has the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs a library that is not installed here: pip install 'mlserver[{extra}]'"
        )


def load(module: str, what: str, extra: str) -> Any:
    """Import a module of an optional library.

    Args:
        what: What needs it, as the beginning of a sentence.
        extra: The extra of this distribution that brings it.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotInstalled(what, extra) from None
