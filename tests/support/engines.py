"""The engine `ray` as a value of a test's parameter `workers` (see `support.server.Server`)."""

from __future__ import annotations

import pytest

from support.server import RAY

RAY_ENGINE = pytest.param(RAY, marks=[pytest.mark.slow, pytest.mark.ray], id="ray")
