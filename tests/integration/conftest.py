"""Fixtures that several modules share: a server for `mlserver infer`, and the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.infer_command import InferCommand, start_server
from support.server import Server


@pytest.fixture(scope="session")
def infer_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the models of `support.infer_command`."""
    with start_server(tmp_path_factory.mktemp("infer-models")) as started:
        yield started


@pytest.fixture
def run(infer_server: Server, tmp_path: Path) -> InferCommand:
    """`run(model, input, output, *options)` runs `mlserver infer` in a folder of the test's own."""
    return InferCommand(infer_server, tmp_path)
