"""MkDocs hooks: pages of the repository's root, links that work in both places, pictures.

The files in `ROOT_PAGES` stay at the root of the repository, where a reader of the source expects
them, and appear on the site too. A link to another file outside docs/ becomes its label.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "ARCHITECTURE.md": "explanation/pipeline.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
PICTURE = re.compile(r'<img alt="([^"]*)" src="[^"]*assets/pictures/([a-z-]+)\.svg" ?/?>')
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages of the root."""
    from mkdocs.structure.files import File

    for name, page in ROOT_PAGES.items():
        text = convert_links((ROOT / name).read_text(), source=name, page=page)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Convert the links of a page of docs/."""
    path = page.file.src_uri
    if path in ROOT_PAGES.values():
        return markdown
    noted = NOT_RUN.sub(r'<p class="not-run">Not run by the tests: \1.</p>\n', markdown)
    return convert_links(noted, source=f"docs/{path}", page=path)


def on_page_content(html: str, **_: Any) -> str:
    """Put pictures into the page itself, where they follow the page's light or dark scheme."""

    def replace(match: re.Match[str]) -> str:
        picture = (ROOT / "docs" / "assets" / "pictures" / f"{match[2]}.svg").read_text()
        return f'<div class="picture-frame">{picture}</div>'

    return PICTURE.sub(replace, html)


def convert_links(text: str, source: str, page: str) -> str:
    """Return `text` with links relative to `page` instead of `source`.

    Args:
        text: Markdown.
        source: path of the text in the repository.
        page: path of the page, relative to docs/.
    """

    def convert(match: re.Match[str]) -> str:
        mark, label, target, fragment = match.groups()
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group(0)
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        destination = ROOT_PAGES.get(path) or path.removeprefix("docs/")
        if destination == path:
            return str(label)
        relative = os.path.relpath(destination, os.path.dirname(page) or ".")
        return f"{mark}[{label}]({relative}{fragment or ''})"

    return LINK.sub(convert, text)
