"""A process without the machine's settings: no variables of the server, no `.env`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def isolate_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove the machine's environment variables, and `.env` by a change to an empty folder."""
    for name in os.environ:
        if name.upper().startswith("MLSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
