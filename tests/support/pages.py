"""Fenced blocks of the documentation pages, and how each is tested.

- A block with a title (```json title="serve/settings.json"```) is a file, which the page's test
  writes into the page's folder.
- A `bash` block is run. `# ...` lines directly below a command are its expected output, in which
  `...` stands for any text.
- A `python` block without a title is run as a program, unless it is part of a file of examples/.
- `<!-- not run: REASON -->` on the line above exempts a block. The site shows the reason.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Languages whose blocks are commands or programs.
RUNNABLE = ("bash", "python", "javascript", "java")
_OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`]*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_REASON = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: First word of the info string.
        title: Name of the file that the block is.
        text: Content, without the indentation of the fence.
        reason: Why the block is not run.
        line: Line number of the fence.
    """

    language: str
    title: str | None
    text: str
    reason: str | None
    line: int

    @property
    def is_excerpt(self) -> bool:
        """Whether the block is part of a file of examples/."""
        return any(self.text in source for source in example_sources())


def is_run(block: Block) -> bool:
    """Whether a page's test writes or runs the block."""
    if block.reason is not None:
        return False
    is_program = block.language == "python" and not block.is_excerpt
    return bool(block.title) or block.language == "bash" or is_program


@cache
def example_sources() -> list[str]:
    files = (ROOT / "examples").rglob("*.*")
    return [path.read_text() for path in files if path.suffix in {".py", ".json"}]


def page_names() -> list[str]:
    """Paths of README.md and of the pages of docs/, relative to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "docs/*.md", "README.md", "runtimes/mlflow/README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split() if (ROOT / name).is_file()]


def read_blocks(name: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    blocks: list[Block] = []
    lines = (ROOT / name).read_text().splitlines()
    index, last_comment = 0, ""
    while index < len(lines):
        opening = _OPENING.match(lines[index])
        if opening is None:
            is_comment = lines[index].strip().startswith("<!--")
            if is_comment or lines[index].strip():
                last_comment = lines[index].strip() if is_comment else ""
            index += 1
            continue
        end = index + 1
        while lines[end].strip() != opening["fence"]:
            end += 1
        width = len(opening["indent"])
        content = [line[width:] for line in lines[index + 1 : end]]
        blocks.append(_make_block(opening["info"], content, last_comment, index + 1))
        index, last_comment = end + 1, ""
    return blocks


def _make_block(info: str, lines: list[str], comment: str, line: int) -> Block:
    title = _TITLE.search(info)
    reason = _REASON.search(comment)
    words = info.split()
    return Block(
        language=words[0] if words else "",
        title=title[1] if title else None,
        text="\n".join(lines) + "\n",
        reason=reason[1] if reason else None,
        line=line,
    )
