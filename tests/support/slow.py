"""Further parameters of a test, which `make test` leaves to `make test-slow`."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:  # noqa: A002 - the name of pytest
    """The values of one parameter set, with the marker `slow`."""
    return pytest.param(*values, marks=pytest.mark.slow, id=id)
