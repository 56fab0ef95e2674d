"""Fixtures of every test: MLflow models, built once, and a way to serve a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from support.models import build
from support.server import Server


@dataclass(frozen=True)
class Models:
    """MLflow models on disk, by kind (see `support.models`), and the wine model's own answer for the walk's wine."""

    folder: Path
    wine_answer: float
    red_wine: bool

    def __getitem__(self, kind: str) -> Path:
        return self.folder / kind

    def copy(self, kind: str, to: Path) -> Path:
        """A copy that a test may write to. Returns `to`."""
        shutil.copytree(self[kind], to)
        return to


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Real MLflow models of every kind. Read-only: `copy` one to change it."""
    folder = tmp_path_factory.mktemp("mlflow-models")
    build(folder)
    answers = json.loads((folder / "answers.json").read_text())
    return Models(folder, answers["wine"], answers["red"])


class Serve(Protocol):
    def __call__(self, folder: Path, **options: Any) -> Server: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(folder, ...)` starts a `Server` that ends, checked, with the test."""
    with ExitStack() as servers:
        yield lambda folder, **options: servers.enter_context(Server(folder, **options))
