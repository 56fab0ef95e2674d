"""Every command and program of the documentation pages, page by page, with a real server.

`support/pages.py` has the conventions. `pip install` lines are run in the walk of the tutorials
(`matrix/test_readme.py`); here their packages are already installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.page_session import PageSession
from support.pages import is_run, page_names, read_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# README is tested by `make test-readme`.
ELSEWHERE = ("README.md", "docs/tutorials/")


def pages_with_commands() -> list[str]:
    names = []
    for name in page_names():
        if not name.startswith(ELSEWHERE) and any(is_run(block) for block in read_blocks(name)):
            names.append(name)
    return names


@pytest.mark.parametrize("name", pages_with_commands())
def test_page(name: str, tmp_path: Path) -> None:
    with PageSession(tmp_path) as session:
        for block in read_blocks(name):
            if is_run(block):
                session.run_block(block)
