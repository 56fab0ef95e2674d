"""Reference pages made from the code: `python -m tools.reference` (`make reference`) writes them.

Each module has a function that returns one page; `PAGES` lists them. A test compares the pages with
the files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import (
    command_line,
    content_types,
    error_codes,
    grpc_api,
    metrics,
    mlflow_extra,
    rest_api,
    settings,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli-options.md": command_line.page,
    "content-types.md": content_types.page,
    "errors.md": error_codes.page,
    "grpc-api.md": grpc_api.page,
    "metrics.md": metrics.page,
    "mlflow-extra.md": mlflow_extra.page,
    "rest-api.md": rest_api.page,
    "settings.md": settings.page,
}


def write_pages() -> None:
    """Write all pages into docs/reference."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
