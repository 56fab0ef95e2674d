"""Which models' code the workers of a pool may load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import isolation


class AllowedCode(NamedTuple):
    """Code that a worker may load.

    Attributes:
        allowed: See `isolation.restrict`.
        modules: Top-level names of the modules that the pool's models ship.
    """

    allowed: str = isolation.NO_CODE
    modules: Sequence[str] = ()


NO_CODE = AllowedCode()
