"""Rates and errors as the console's pages show them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.browser import OpenConsole, see, see_heading
from support.repository import tensor, write_model
from support.server import Server

ECHO = [tensor("x", [1.0], "FP64")]
# 30 s of two models that got 30 requests each in the first second. Returns the rate of all models,
# and those of the table's rows.
SUMS = """async () => {
  const script = document.querySelector("script[type=module]").src;
  const store = await import(script.replace("main.js", "store.js"));
  const server = {name: "s", version: "2", started: 1, ready: true};
  for (let second = 0; second <= 30; second += 1) {
    const done = second ? 30 : 0, counts = {counts: {"1": done}, sum: done};
    const models = ["a", "b"].map(name => ({
      name, version: "", state: "READY", ready: true, reason: "", success: done, failure: 0,
      in_flight: 0, rejected: {}, shadow: {}, swaps: {},
      queue_seconds: 0, model_seconds: 0, transport_seconds: 0,
      latency: counts, queue: counts, batch_requests: counts}));
    store.record({
      time: 4e9 + second, server, latency_bounds: [0.1, 0.2], count_bounds: [1, 2], models,
      missing: [], processes: []});
  }
  return [store.summarizeAll().rate, ["a", "b"].map(name => store.summarize(name, "").rate)];
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("numbers")
    write_model(folder / "echo")
    with Server(folder, workers=0) as running:
        yield running


def test_messages_of_errors_are_in_view_on_a_phone(
    server: Server, open_console: OpenConsole
) -> None:
    assert server.infer("missing", ECHO).status_code == 404
    console = open_console(server, viewport={"width": 390, "height": 844})
    page = console.open("errors")
    see(page, "Model missing not found")
    box = page.get_by_text("Model missing not found", exact=True).first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_totals_are_sums_of_the_table(server: Server, open_console: OpenConsole) -> None:
    """The rates above the table and in it are of the same minute."""
    page = open_console(server).open()
    see_heading(page, "Overview")
    total, rows = page.evaluate(SUMS)
    assert total == pytest.approx(2.0)  # requests in the first second only: 60 in 30 s
    assert sum(rows) == pytest.approx(total)
