"""Fixtures of every test: MLflow models, built once, and a way to serve a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from support.models import Models, build
from support.reliability_index import TESTS, p0_tests
from support.server import Serve, Server

# The machine may be busy: an example that takes long is no failure.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the rows that must hold in every release are marked `p0`."""
    for item in items:
        if isinstance(item, pytest.Function):
            file = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
            if (str(file), item.originalname) in p0_tests():
                item.add_marker(pytest.mark.p0)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Real MLflow models of every kind. Read-only: `copy` one to change it."""
    folder = tmp_path_factory.mktemp("mlflow-models")
    build(folder)
    answers = json.loads((folder / "answers.json").read_text())
    return Models(folder, answers["wine"], answers["red"])


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(folder, ...)` starts a `Server` that ends, checked, with the test."""
    with ExitStack() as servers:
        yield lambda folder, **options: servers.enter_context(Server(folder, **options))
