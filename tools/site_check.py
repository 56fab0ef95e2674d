"""Checks of the built site: its search finds what users look for, and it loads no other host.

`python -m tools.site_check`, after `mkdocs build` (`make docs` runs both).
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "build" / "site"
# What a user types -> a page that must be among the results whose title or heading matches, or
# whose text does.
SEARCHES = {
    "dynamic batching": "how-to/tuning/",
    "Prometheus": "how-to/monitoring/",
    "readiness probe": "how-to/kubernetes/",
    "canary": "how-to/traffic/",
    "422": "how-to/troubleshooting/",
    "OOM": "how-to/troubleshooting/",
    "grpcurl": "how-to/clients/",
    "docker": "how-to/docker/",
    "JWT": "how-to/security/",
    "parallel_workers": "reference/settings/",
    "No such path": "how-to/troubleshooting/",
    "predict_proba": "how-to/mlflow/",
}
# Attributes that make a browser load a file, by element.
LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
NOT_LOADED = ("canonical", "prev", "next", "alternate")


class LoadedFiles(HTMLParser):
    """Addresses on other hosts that a page loads when it is viewed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADING.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address) and values.get("rel") not in NOT_LOADED:
            self.found.append(address)


def find_pages(query: str, entries: list[dict[str, str]]) -> list[str]:
    """Return the sections that contain all words of a query; matches of a title come first."""
    words = query.lower().split()

    def has_words(text: str) -> bool:
        return all(word in text.lower() for word in words)

    titles = [entry["location"] for entry in entries if has_words(entry["title"])]
    texts = [entry["location"] for entry in entries if has_words(entry["text"])]
    return titles + texts


def check_search() -> list[str]:
    index = json.loads((SITE / "search" / "search_index.json").read_text())
    faults = []
    for query, page in SEARCHES.items():
        pages = find_pages(query, index["docs"])
        if not any(location.startswith(page) for location in pages):
            faults.append(f"search for {query!r}: expected {page}, received {pages[:5]}")
    return faults


def check_hosts() -> list[str]:
    faults = []
    for path in SITE.rglob("*.html"):
        parser = LoadedFiles()
        parser.feed(path.read_text())
        faults += [f"{path.relative_to(SITE)} loads {address}" for address in parser.found]
    for path in SITE.rglob("*.css"):
        for address in re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", path.read_text()):
            faults.append(f"{path.relative_to(SITE)} loads {address}")
    return faults


if __name__ == "__main__":
    faults = check_search() + check_hosts()
    if faults:
        raise SystemExit("\n".join(faults))
