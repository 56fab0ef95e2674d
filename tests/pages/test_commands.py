"""Every command and program of the documentation pages, page by page, with a real server.

`support/pages.py` has the conventions. `pip install` lines are run by the walk of the tutorials
(`matrix/test_tutorials.py`); here their packages are already installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.page_session import PageSession
from support.pages import Block, page_names, read_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Tested as a whole elsewhere: README by `make test-readme`.
ELSEWHERE = {"README.md"}


def is_run(block: Block) -> bool:
    if block.reason is not None:
        return False
    is_program = block.language == "python" and not block.is_excerpt
    return bool(block.title) or block.language == "bash" or is_program


def pages_with_commands() -> list[str]:
    names = []
    for name in page_names():
        if name not in ELSEWHERE and any(is_run(block) for block in read_blocks(name)):
            names.append(name)
    return names


@pytest.mark.parametrize("name", pages_with_commands())
def test_page(name: str, tmp_path: Path) -> None:
    with PageSession(tmp_path) as session:
        for block in read_blocks(name):
            if is_run(block):
                session.run_block(block)
