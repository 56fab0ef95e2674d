"""README and tutorials in a clean virtual environment (`make test-readme`).

README's commands run in a copy of the repository and install from it. The tutorials follow in the
same environment, each in an empty folder; their `pip install` finds wheels of this repository.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import clean_venv
from support.page_session import PageSession
from support.pages import ROOT, is_run, read_blocks

pytestmark = [pytest.mark.clean_venv, pytest.mark.timeout(1800)]
TUTORIALS = ("quick-start", "mlflow-to-production", "batch-scoring", "custom-runtime")


@dataclass(frozen=True)
class CleanVenv:
    """An environment with nothing but pip, and the variables for pip in it."""

    python: Path
    variables: dict[str, str]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanVenv:
    folder = tmp_path_factory.mktemp("clean")
    try:
        clean_venv.build_wheels(folder / "wheels")
    except clean_venv.NoPackageIndex as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    python, variables = clean_venv.create(folder / "venv", folder / "wheels")
    return CleanVenv(python, variables)


def run_page(name: str, session: PageSession) -> None:
    for block in read_blocks(name):
        if is_run(block):
            session.run_block(block)


def test_readme(clean: CleanVenv, tmp_path: Path) -> None:
    with PageSession(tmp_path, clean.python, env=clean.variables) as session:
        copy_repository(session.folder)
        run_page("README.md", session)


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name: str, clean: CleanVenv, tmp_path: Path) -> None:
    with PageSession(tmp_path, clean.python, env=clean.variables) as session:
        run_page(f"docs/tutorials/{name}.md", session)


def copy_repository(folder: Path) -> None:
    """Copy the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git: there is no list of the repository's files")
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
