"""A repository in an empty folder, without any of the machine's variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.settings_environment import isolate_settings

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_settings(monkeypatch, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def write(root: Path) -> Write:
    """`write("a/b", {...})` writes a model-settings.json below the root, a str verbatim."""

    def write_(folder: str, content: Any = None) -> Path:
        path = root / folder / "model-settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"implementation": "a.B"} if content is None else content
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_
