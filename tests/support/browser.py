"""A browser for tests: the system's chromium, driven by Playwright; pages that record what must not
happen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).resolve().parents[1] / "browser" / "vendor" / "axe.min.js"
# Rules of WCAG 2.1 A and AA.
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def find_browser() -> str:
    """Return the path of the system's browser; skips the test if there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser: expected one of {', '.join(NAMES)}; apt-get install chromium")


def import_playwright() -> Any:
    """Return Playwright's synchronous interface; skips the test if it is not installed."""
    return pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: pip install playwright"
    )


@contextmanager
def launch() -> Iterator[Any]:
    """Yield a browser."""
    playwright_api, path = import_playwright(), find_browser()
    with playwright_api.sync_playwright() as playwright:
        # As root, chromium cannot use its sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Console:
    """The console in a tab of its own.

    Attributes:
        page: Playwright's page.
        failures: What must not happen: errors on the browser's console, requests to other origins,
            dialogs.
    """

    def __init__(self, browser: Any, url: str, prefix: str = "", **options: Any) -> None:
        self.url = f"{url}{prefix}/console/"
        self._origin = urlsplit(url).netloc
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.page.set_default_timeout(30_000)
        self._is_closed = False
        self.failures: list[str] = []
        self.allowed_statuses: set[int] = set()
        self.page.on("console", self._on_message)
        self.page.on("pageerror", lambda error: self.failures.append(f"error: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("dialog", lambda dialog: self.failures.append(f"dialog: {dialog.message}"))

    def _on_message(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        # The browser reports each response with an error status; tests of errors expect them.
        expected = [f"status of {status} " for status in self.allowed_statuses]
        if not any(text in message.text for text in expected):
            self.failures.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._origin:
            self.failures.append(f"request to {request.url}")

    def open(self, fragment: str = "", *, allow: tuple[int, ...] = ()) -> Any:
        """Open a page of the console, and return Playwright's page.

        Args:
            allow: Error statuses that this test expects.
        """
        self.allowed_statuses |= set(allow)
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}#/{fragment}")
        return self.page

    def use_key(self, key: str) -> None:
        """Enter a key in the dialog."""
        self.page.get_by_role("button", name="API key").click()
        self.page.get_by_label("API key or token", exact=True).fill(key)
        self.page.get_by_role("button", name="Use key").click()

    def list_violations(self) -> list[str]:
        """Return the serious faults of accessibility that axe-core finds."""
        # By the debugger's protocol, to which the content security policy does not apply.
        session = self._context.new_cdp_session(self.page)
        loaded = session.send("Runtime.evaluate", {"expression": "typeof axe"})
        if loaded["result"]["value"] == "undefined":
            session.send("Runtime.evaluate", {"expression": AXE.read_text()})
        expression = (
            f"axe.run({{runOnly: {AXE_TAGS}}}).then(found => JSON.stringify(found.violations))"
        )
        options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = session.send("Runtime.evaluate", options)
        session.detach()
        return [
            f"{fault['id']}: {fault['help']}: {[node['html'][:160] for node in fault['nodes'][:3]]}"
            for fault in _parse(answer["result"]["value"])
            if fault["impact"] in ("serious", "critical")
        ]

    def close(self) -> None:
        """Close the tab. Raises `AssertionError` if something happened that must not."""
        if self._is_closed:
            return
        self._is_closed = True
        self._context.close()
        assert not self.failures, "\n".join(self.failures)


class OpenConsole(Protocol):
    """Type of the fixture `open_console`; `at`: the URL of a proxy in front of the server."""

    def __call__(self, server: Any, at: str | None = None, **options: Any) -> Console: ...


def see(page: Any, text: str, limit: float = 30_000) -> None:
    """Wait until a text is visible."""
    page.get_by_text(text).first.wait_for(timeout=limit)


def see_heading(page: Any, text: str) -> None:
    page.get_by_role("heading", name=text, level=1, exact=True).wait_for()


def _parse(text: str) -> list[dict[str, Any]]:
    import json

    entries: list[dict[str, Any]] = json.loads(text)
    return entries
