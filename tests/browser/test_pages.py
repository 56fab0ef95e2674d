"""Every page of the console in a browser: with any number of models, keys, sizes and names."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlserver.security.credentials import hash_key
from support.browser import Console, OpenConsole, see, see_heading
from support.repository import tensor, write_model, write_server_settings
from support.server import Server, create_client
from support.slow import slow

PAGES = {
    "": "Overview",
    "try": "Try it",
    "traffic": "Versions and traffic",
    "workers": "Workers",
    "errors": "Errors",
    "settings": "Settings",
    "api": "API",
}
ECHO = [tensor("x", [1.0], "FP64")]
HOSTILE = ["<img src=x onerror=alert(1)>", "x" * 1000, "שלום עולם", "a/b %2F ?#&'\"` {}"]


# Numbers of models; axe examines each of 7 pages for each of them.
MODEL_COUNTS = [slow(0), 1, slow(50)]


def write_models(folder: Path, number: int, **settings: Any) -> None:
    """Write so many models with one input, and the server's settings."""
    write_server_settings(folder, load_models_at_startup=number > 0, **settings)
    for index in range(number):
        inputs = [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}]
        write_model(folder / f"model-{index:02}", inputs=inputs)


@pytest.fixture(scope="module", params=MODEL_COUNTS)
def counted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, int]]:
    """A server with so many models."""
    folder = tmp_path_factory.mktemp("counted")
    write_models(folder, request.param)
    with Server(folder, workers=None if request.param == 1 else 0) as running:
        yield running, request.param


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    split = {"traffic": {"weights": {"1": 90, "2": 10}}}
    write_model(folder / "one", name="split", parameters={"version": "1"})
    write_model(folder / "two", name="split", parameters={"version": "2", "extra": split})
    write_model(folder / "broken", "Broken")
    for number, name in enumerate(HOSTILE):
        write_model(folder / f"hostile-{number}", name=name)
    write_server_settings(folder, strict_readiness=False)
    with Server(folder, tracebacks=True) as running:
        yield running


def is_too_wide(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def visit(console: Console, path: str, title: str) -> Any:
    """Go to a page without loading the document again; returns Playwright's page."""
    page = console.page
    page.goto(f"{console.url}#/{path}")
    see_heading(page, title)
    page.locator(".loading").wait_for(state="detached")
    return page


def check_every_page(console: Console, number: int, errors: str) -> None:
    """Visit all pages of a server with so many models, and check what they show.

    Args:
        errors: Text of the page of errors.
    """
    for path, title in PAGES.items():
        page = visit(console, path, title)
        if path == "":
            see(page, "model-00" if number else "No model is loaded")
            assert page.locator("table.models tbody tr").count() == number
        elif path == "try":
            see(page, "Response" if number else "No model is loaded")
        elif path == "workers":
            see(page, "Pool 1" if number == 1 else "no worker processes")
        elif path == "errors":
            see(page, errors)
        assert not is_too_wide(page), path
        assert not console.list_violations(), path


def test_every_page(counted: tuple[Server, int], open_console: OpenConsole) -> None:
    server, number = counted
    console = open_console(server, viewport={"width": 1440, "height": 900})
    console.open()
    check_every_page(console, number, "No error since the start")


@pytest.mark.parametrize("number", MODEL_COUNTS)
def test_every_page_with_credentials(
    tmp_path: Path, open_console: OpenConsole, number: int
) -> None:
    (tmp_path / "keys.txt").write_text(f"admin infer,admin,metrics {hash_key('admin-key')}\n")
    write_models(tmp_path, number, auth={"keys": "keys.txt"})
    with Server(tmp_path, workers=None if number == 1 else 0) as running:
        console = open_console(running, viewport={"width": 1440, "height": 900})
        page = console.open(allow=(401,))
        for path in PAGES:
            page.goto(f"{console.url}#/{path}")
            see(page, "This server needs a credential")
            assert "model-" not in page.content()
        assert not console.list_violations()
        console.use_key("admin-key")
        see_heading(page, PAGES["api"])  # the last of `PAGES`
        page.get_by_text("This server needs a credential").wait_for(state="detached")
        check_every_page(console, number, "Credential missing")
        console.close()


@pytest.mark.parametrize(
    "scheme, width",
    [slow("dark", 1440), slow("light", 390), ("dark", 390)],
)
def test_dark_and_narrow(
    server: Server, open_console: OpenConsole, scheme: str, width: int
) -> None:
    console = open_console(server, viewport={"width": width, "height": 844}, color_scheme=scheme)
    console.open()
    others = {"models/split/2": "split", "api/split/1": "API of split version 1"}
    for path, title in {**PAGES, **others}.items():
        page = visit(console, path, title)
        assert not is_too_wide(page), path
        assert not console.list_violations(), path


def test_names_are_text(server: Server, open_console: OpenConsole) -> None:
    console = open_console(server)
    page = console.open()
    for name in HOSTILE:
        page.get_by_role("link", name=name, exact=True).wait_for()
        page.get_by_role("link", name=name, exact=True).click()
        see_heading(page, name)
        page.get_by_role("link", name="Try it", exact=True).last.click()
        page.get_by_role("button", name="Send").click()
        page.get_by_role("status", name="Response").get_by_text("200").wait_for()
        page.get_by_role("link", name="Overview").click()
    assert page.locator("img").count() == 0


def test_a_failed_model_has_a_banner(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open()
    banner = page.get_by_role("alert").filter(has_text="broken")
    assert "the weights are missing" in banner.inner_text()
    load = banner.get_by_role("button", name="Load")
    assert load.get_attribute("aria-disabled") == "true"
    assert "Origin" in banner.inner_text()  # the reason why
    load.dispatch_event("click")  # does nothing
    assert "broken" in page.get_by_role("alert").all_inner_texts()[0]


def test_errors_are_listed(server: Server, open_console: OpenConsole) -> None:
    assert server.infer("<i>missing", ECHO).status_code == 404
    page = open_console(server).open("errors")
    see(page, "Model <i>missing not found")
    page.get_by_label("Filter errors").fill("nothing like it")
    page.get_by_text("Model <i>missing not found").wait_for(state="detached")


@pytest.mark.slow
def test_settings_are_filtered(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open("settings")
    page.get_by_label("Only those that are set").check()
    see(page, "settings.json")
    page.get_by_label("Filter settings").fill("strict_readiness")
    assert page.locator("table.settings tbody tr").count() == 1


@pytest.mark.slow
def test_shares_of_a_split(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open("traffic")
    see_heading(page, PAGES["traffic"])
    page.locator(".loading").wait_for(state="detached")
    with create_client(server.url) as client:
        for _ in range(300):
            assert client.post("/v2/models/split/infer", json={"inputs": ECHO}).status_code == 200
    card = page.get_by_role("region", name="split", exact=True)
    card.get_by_role("cell", name="90 %", exact=True).first.wait_for()

    def read_shares() -> list[float]:
        rows = card.locator("tbody tr").all()
        texts = [row.locator("td").nth(2).inner_text() for row in rows]
        return [float(text.split()[0]) for text in texts if text != "–"]

    server.wait(lambda: sum(read_totals(card)) == 300, "the page counted 300")
    shares = read_shares()
    # 300 requests: six standard deviations are 10 points.
    assert 80 <= shares[0] <= 100
    assert 0 <= shares[1] <= 20


def read_totals(card: Any) -> list[int]:
    rows = card.locator("tbody tr").all()
    return [int(row.locator("td").nth(5).inner_text()) for row in rows]


@pytest.mark.slow
def test_a_killed_worker_is_seen(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open("workers")
    pool = next(
        entry for entry in server.get("/v2/console/workers").json()["pools"] if entry["workers"]
    )
    (worker,) = pool["workers"]
    see(page, f"Process {worker['pid']}")
    os.kill(worker["pid"], signal.SIGKILL)
    see(page, f"process {worker['pid']} ended, signal SIGKILL", limit=30_000)
    card = page.get_by_role("region", name=f"Pool {pool['number']}", exact=True)
    card.get_by_text("1 of 1 ready").wait_for(timeout=60_000)


@pytest.mark.slow
def test_live_numbers_and_plots(server: Server, open_console: OpenConsole) -> None:
    console = open_console(server, accept_downloads=True)
    page = console.open("models/split/1")
    page.locator(".loading").wait_for(state="detached")
    page.locator(".plot").first.wait_for()
    assert page.locator(".plot canvas").count() == 4
    page.get_by_text("Numbers").first.click()
    table = page.get_by_role("region", name="Latency, numbers")
    table.get_by_role("columnheader", name="p99").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture: Latency").click()
    assert download.value.suggested_filename == "latency.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_requests_of_the_api_page(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open("api")
    page.get_by_text("/v2/health/live").click()
    page.get_by_role("button", name="Send").click()
    see(page, '"live": true')


def test_the_root_and_the_docs_lead_here(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).page
    page.goto(server.url + "/")
    see_heading(page, "Overview")
    page.goto(server.url + "/v2/models/split/versions/2/docs")
    see_heading(page, "API of split version 2")


# -- addresses, processes, time --


@contextmanager
def serve_echo(folder: Path, **options: Any) -> Iterator[Server]:
    write_model(folder / "echo", inputs=[{"name": "x", "datatype": "FP64", "shape": [-1, 1]}])
    with Server(folder, **options) as running:
        yield running


@pytest.mark.slow
def test_several_http_workers(tmp_path: Path, open_console: OpenConsole) -> None:
    with serve_echo(tmp_path, env={"MLSERVER_HTTP_WORKERS": "2"}) as running:
        console = open_console(running)
        page = console.open()
        page.get_by_role("link", name="echo", exact=True).wait_for()
        for _ in range(20):
            with create_client(running.url) as client:
                assert (
                    client.post("/v2/models/echo/infer", json={"inputs": ECHO}).status_code == 200
                )
        page.get_by_role("cell", name="20", exact=True).wait_for()
        page.get_by_role("link", name="Workers").click()
        see(page, "HTTP worker 1")
        console.close()


@pytest.mark.slow
def test_a_server_that_ends_and_returns(tmp_path: Path, open_console: OpenConsole) -> None:
    with serve_echo(tmp_path, workers=0) as running:
        console = open_console(running)
        page = console.open()
        page.get_by_role("link", name="echo", exact=True).wait_for()
        console.failures.clear()
        running.process.send_signal(signal.SIGSTOP)
        try:
            page.route("**/v2/console/**", lambda route: route.abort())
            see(page, "The server does not answer")
            page.get_by_role("link", name="echo", exact=True).wait_for()  # the last known values
        finally:
            running.process.send_signal(signal.SIGCONT)
        page.unroute("**/v2/console/**")
        page.get_by_text("The server does not answer").wait_for(state="detached")
        console.failures.clear()  # the browser reports the aborted requests
        console.close()


# Feeds the page's store with documents of 50 models, one per second of a fast-forwarded clock.
FEED = """async ([seconds, start]) => {
  const script = document.querySelector("script[type=module]").src;
  const store = await import(script.replace("main.js", "store.js"));
  const counts = step => ({counts: {"10": 5 * step, "20": step}, sum: step});
  const server = {name: "s", version: "2", started: 1, ready: true};
  const latencyBounds = Array.from({length: 99}, (_, i) => 1e-4 * 1.1 ** i);
  for (let second = 0; second < seconds; second += 1) {
    const step = start + second;
    const models = Array.from({length: 50}, (_, index) => ({
      name: `m${index}`, version: "", state: "READY", ready: true, reason: "",
      success: 6 * step, failure: step, in_flight: 1, rejected: {}, shadow: {}, swaps: {},
      queue_seconds: step, model_seconds: step, transport_seconds: step,
      latency: counts(step), queue: counts(step), batch_requests: counts(step)}));
    const processes = [{
      kind: "worker", pid: 1 + (step % 400), pool: 1, resident_bytes: 1e8,
      processor_seconds: step}];
    store.record({
      time: 4e9 + step, server, latency_bounds: latencyBounds,
      count_bounds: [1, 2], models, missing: [], processes});
  }
}"""


def measure_heap(page: Any) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return float(used)


@pytest.mark.slow
def test_memory_is_bounded(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open()
    see_heading(page, "Overview")
    empty = {"time": 0, "server": {"started": 1}, "models": [], "missing": [], "processes": []}
    empty["latency_bounds"] = []
    page.route("**/v2/console/metrics", lambda route: route.fulfill(status=200, json=empty))
    page.evaluate(FEED, [1000, 0])
    first = measure_heap(page)
    page.evaluate(FEED, [600, 1000])
    grown = measure_heap(page) - first
    assert grown < 2e6, f"10 minutes of polling took {grown / 1e6:.1f} MB"


def test_files_have_no_other_origin(server: Server, open_console: OpenConsole) -> None:
    page = open_console(server).open()
    see_heading(page, "Overview")
    sources = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert sources
    assert all(re.match(re.escape(server.url), source) for source in sources)


@pytest.mark.slow
def test_a_shadow_difference_and_a_failed_load_are_seen(
    tmp_path: Path, open_console: OpenConsole
) -> None:
    traffic = {"traffic": {"shadow": "2"}}
    write_model(tmp_path / "one", name="m", parameters={"version": "1", "extra": traffic})
    write_model(tmp_path / "two", "Sum", name="m", parameters={"version": "2"})
    write_model(tmp_path / "later")
    with Server(tmp_path, tracebacks=True) as running:
        console = open_console(running)
        page = console.open("traffic")
        see(page, "no request has been copied yet")
        assert running.infer("m", ECHO).status_code == 200
        see(page, "1 different")
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("link", name="later", exact=True).wait_for()
        write_model(tmp_path / "later", "Broken")
        assert running.post("/v2/repository/models/later/load").status_code == 500
        banner = page.get_by_role("alert").filter(has_text="later")
        banner.get_by_text("serves its previous state").wait_for()
        assert "the weights are missing" in banner.inner_text()
        console.close()
