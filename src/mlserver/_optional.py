"""Import of optional libraries, with one error that names the install command."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UnsupportedMediaType


class NotInstalled(UnsupportedMediaType):
    """A required optional library is not installed; the text has the install command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs a library that is not installed: pip install 'mlserver[{extra}]'"
        )


def import_optional(module: str, what: str, extra: str) -> Any:
    """Import a module of an optional library.

    Args:
        what: The feature that needs the module, as the subject of the error message.
        extra: The extra of this distribution with the library.

    Raises:
        NotInstalled: the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotInstalled(what, extra) from None
