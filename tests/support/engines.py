"""The engine `ray` as a value of a test's parameter `workers` (see `support.server.Server`)."""

from __future__ import annotations

import pytest

from support.server import RAY

# A cluster and its replicas start in half a minute, on a busy machine in several.
_MARKS = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
RAY_ENGINE = pytest.param(RAY, marks=_MARKS, id="ray")
# Parameters of a fixture: in the server's process, in two workers, in a Ray cluster.
ENGINES = [pytest.param(0, id="in-process"), pytest.param(2, id="two-workers"), RAY_ENGINE]


def enter_engine(request: pytest.FixtureRequest) -> None:
    """Prepare a module's fixture for its parameter: with Ray, enter the cluster's namespace."""
    if request.param == RAY:
        request.getfixturevalue("ray_cluster")
