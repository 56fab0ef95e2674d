"""Fixtures of every test: MLflow models, built once per machine, and a server for a folder."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import mlflow_agents as agent_models_builder
from support import models as models_builder
from support import server
from support import signature_models as signature_models_builder
from support.examples import PROFILE, example_count
from support.models import Models
from support.network import Network
from support.ray_cluster import RayCluster, find_reason_to_skip
from support.reliability_index import TESTS, p0_tests
from support.server import Serve, Server

# An example that takes long on a busy machine is no failure. `make test` draws the same examples in
# every run; HYPOTHESIS_PROFILE=random (`make fuzz`) draws new ones.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "random",
    settings.get_profile("repeatable"),
    derandomize=False,
    max_examples=example_count(100),
)
settings.load_profile(PROFILE)

# Fixtures of models that a child process builds, by name.
MODEL_BUILDERS: dict[str, Callable[[], object]] = {
    "models": models_builder.build,
    "signature_models": signature_models_builder.build,
    "agent_models": agent_models_builder.build,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the rows that must hold in every release with `p0`."""
    for item in items:
        if isinstance(item, pytest.Function):
            file = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
            if (str(file), item.originalname) in p0_tests():
                item.add_marker(pytest.mark.p0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` is that of `support.distribution`."""
    if config.getvalue("dist") != "loadfile":
        return None
    from support.distribution import FileScheduling

    return FileScheduling(config, log)


def collect_garbage() -> None:
    """Collect it; what is left mostly lives until the end: later collections do not visit it."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the models that the selected tests need, before the first test's time limit starts."""
    if session.config.option.collectonly:
        return
    collect_garbage()
    names: set[str] = set()
    for item in session.items:
        names.update(getattr(item, "fixturenames", ()))
    for name, build in MODEL_BUILDERS.items():
        if name in names:
            build()


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_the_module() -> Iterator[None]:
    """A socket that a module left open fails its last test, not a test of another module."""
    yield
    collect_garbage()


@pytest.fixture(scope="session")
def models() -> Models:
    """MLflow models of every kind. Read-only: `copy` one to change it."""
    return models_builder.build()


@pytest.fixture(scope="session")
def signature_models() -> Path:
    """The folder of the models in `support.signature_models`. Read-only."""
    return signature_models_builder.build()


@pytest.fixture(scope="session")
def agent_models() -> Path:
    """A repository of the models in `support.mlflow_agents`. Read-only."""
    return agent_models_builder.build()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[tuple[Network, RayCluster]]:
    """A namespace with a Ray cluster of one node, or the reason why there is none."""
    reason = find_reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    network = Network()
    with network.entered(), RayCluster([32]) as cluster:
        yield network, cluster
    network.close()


@pytest.fixture(scope="module")
def ray_cluster(ray_session: tuple[Network, RayCluster]) -> Iterator[RayCluster]:
    """The session's Ray cluster. This thread and new processes are in its namespace meanwhile."""
    network, cluster = ray_session
    ray = {"address": cluster.address}
    server.ray_variables.update(
        {**cluster.environment, "MLSERVER_ENGINE": "ray", "MLSERVER_RAY": json.dumps(ray)}
    )
    with network.entered():
        yield cluster
    server.ray_variables.clear()


@pytest.fixture(autouse=True)
def _ray_for_marked_tests(request: pytest.FixtureRequest) -> None:
    """Tests with the marker `ray` run in the namespace of the session's cluster.

    With `own_cluster=True` they have a cluster and a namespace of their own.
    """
    marker = request.node.get_closest_marker("ray")
    if marker is not None and not marker.kwargs.get("own_cluster"):
        request.getfixturevalue("ray_cluster")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(folder, ...)` starts a `Server`, which the end of the test stops and checks."""
    with ExitStack() as servers:
        yield lambda folder, **options: servers.enter_context(Server(folder, **options))
