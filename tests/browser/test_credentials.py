"""The console on a server with credentials: without a key, for inference, for administration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlserver.security.credentials import hash_key
from support.browser import OpenConsole, see
from support.repository import write_model, write_server_settings
from support.server import Server


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    scopes = {"infer-key": "infer", "admin-key": "infer,admin,metrics"}
    lines = [f"{key} {scope} {hash_key(key)}\n" for key, scope in scopes.items()]
    (folder / "keys.txt").write_text("".join(lines))
    write_server_settings(folder, auth={"keys": "keys.txt"})
    write_model(folder / "echo")
    with Server(folder, workers=0) as running:
        yield running


def test_without_a_key(keyed: Server, open_console: OpenConsole) -> None:
    page = open_console(keyed).open("", allow=(401,))
    see(page, "This server needs a credential")
    assert "echo" not in page.content()


def test_a_key_for_inference(keyed: Server, open_console: OpenConsole) -> None:
    console = open_console(keyed)
    page = console.open("", allow=(401, 403))
    console.use_key("infer-key")
    page.get_by_role("link", name="echo", exact=True).wait_for()
    see(page, "need the scope")
    page.goto(console.url + "#/errors")
    see(page, "Not allowed")
    page.goto(console.url + "#/try/echo")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("status", name="Response").get_by_text("200").wait_for()
    assert "infer-key" not in page.content()  # in the code to copy, it is a variable
    assert (
        page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        == '[{},{},""]'
    )


def test_a_wrong_key(keyed: Server, open_console: OpenConsole) -> None:
    console = open_console(keyed)
    page = console.open("", allow=(401,))
    console.use_key("wrong")
    page.get_by_role("main").get_by_text("Credential not valid").wait_for()


def test_load_and_unload(keyed: Server, open_console: OpenConsole) -> None:
    console = open_console(keyed)
    page = console.open("", allow=(401, 403, 404))
    console.use_key("admin-key")
    page.get_by_role("link", name="echo", exact=True).wait_for()
    page.goto(console.url + "#/models/echo")
    page.get_by_role("button", name="Unload").click()
    see(page, "There is no such model")
    headers = {"x-api-key": "admin-key"}
    assert keyed.post("/v2/repository/models/echo/load", headers=headers).status_code == 200
    page.get_by_role("button", name="Reload").wait_for()
    page.get_by_role("button", name="Reload").click()
    page.get_by_role("status").filter(has_text="Loaded").wait_for()
