"""The conversation of Try it with an MLflow chat model that streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Console, launch
from support.server import Server


@pytest.fixture
def console(agent_models: Path) -> Iterator[Console]:
    with launch() as browser, Server(agent_models / "chat", tracebacks=True) as server:
        opened = Console(browser, server.url)
        yield opened
        opened.close()


@pytest.mark.slow
def test_a_conversation(console: Console) -> None:
    page = console.open("try", allow=(500,))
    message = page.get_by_label("Message", exact=True)
    message.fill("good morning <b>")
    page.get_by_role("button", name="Send").click()
    response = page.get_by_role("status", name="Response")
    response.locator(".message.assistant").filter(has_text="goodmorning<b>").wait_for()
    assert message.input_value() == ""
    message.fill("fail")
    message.press("Enter")
    page.get_by_role("alert").first.wait_for()
    assert not console.list_violations()
    page.get_by_role("button", name="Clear").click()
    response.get_by_text("Nothing has been sent yet.").wait_for()
