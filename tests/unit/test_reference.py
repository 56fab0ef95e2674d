"""Generated reference pages are current, and complete where they have texts of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.reference import FOLDER, PAGES
from tools.reference.error_codes import MEANINGS
from tools.version import read_version

from mlserver.errors import CODES
from mlserver.version import __version__
from mlserver_mlflow.extra_settings import EXTRA_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT / "src" / "mlserver", ROOT / "runtimes" / "mlflow" / "mlserver_mlflow")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run: make reference"


def test_every_status_has_a_meaning() -> None:
    assert list(MEANINGS) == list(CODES)


def test_every_key_of_extra_is_described() -> None:
    """Keys that the code reads from `parameters.extra`, by their literals and by constants."""
    read = {"traffic", "env_manager", "base64_inputs"}
    for folder in SOURCES:
        for path in set(folder.rglob("*.py")) - set((folder / "cli").rglob("*.py")):
            read |= set(re.findall(r'\bextra\.get\("(\w+)"', path.read_text()))
    assert {entry.name for entry in EXTRA_SETTINGS} == read


def test_one_version() -> None:
    """Both distributions have the version of `mlserver.version`."""
    assert read_version() == __version__
