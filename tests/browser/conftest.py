"""Fixtures of the tests in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.browser import Console, OpenConsole, launch
from support.server import Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launch() as running:
        yield running


@pytest.fixture
def open_console(browser: Any) -> Iterator[OpenConsole]:
    with ExitStack() as stack:

        def create(server: Server, at: str | None = None, **options: Any) -> Console:
            console = Console(browser, at or server.url, **options)
            stack.callback(console.close)
            return console

        yield create
