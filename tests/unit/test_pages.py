"""Pages: links to files and headings that exist, and blocks that a test can run."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from support.pages import RUNNABLE, page_names, read_blocks

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")


def markdown_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split() if (ROOT / name).is_file()]


@cache
def headings(path: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub and the site make them."""
    text = FENCE.sub("", path.read_text())
    titles = re.findall(r"^#+ (.+?)(?: \{#[^}]*\})?$", text, re.MULTILINE)
    fragments = set(re.findall(r"\{ ?#([\w-]+)", text)) | set(re.findall(r'id="([\w-]+)"', text))
    for title in titles:
        words = re.sub(r"[^\w\s-]", "", title.lower()).strip()
        fragments.add(re.sub(r"\s+", "-", words))
    return fragments


@pytest.mark.parametrize("name", markdown_files())
def test_links_have_targets(name: str) -> None:
    page = ROOT / name
    broken = []
    for target, fragment in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        is_broken = not path.exists()
        if fragment and path.suffix == ".md" and not is_broken:
            is_broken = fragment not in headings(path)
        if is_broken:
            broken.append(f"{target}#{fragment}" if fragment else target)
    assert broken == []


@pytest.mark.parametrize("name", page_names())
def test_blocks_can_be_tested(name: str) -> None:
    """JSON is valid, and a program in a language without a runner has the reason."""
    for block in read_blocks(name):
        where = f"{name}:{block.line}"
        assert block.language, f"{where}: a fenced block needs a language, such as `text`"
        if block.language == "json" and block.reason is None:
            json.loads(block.text)
        if block.language in RUNNABLE and block.language not in {"bash", "python"}:
            assert block.title or block.reason, where
