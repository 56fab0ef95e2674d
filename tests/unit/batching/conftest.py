"""Runs the tests of this folder in virtual time.

Timers fire at once and in order, and durations are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from support.virtual_time import VirtualTimeLoop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: object, item: object) -> Mapping[str, Any]:
    return {"virtual": VirtualTimeLoop}
