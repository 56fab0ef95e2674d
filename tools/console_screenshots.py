"""Screenshots of the console for the documentation: `python -m tools.console_screenshots FOLDER`.

Trains models, serves them, sends requests for SECONDS, and stores a picture of each page. It needs
Playwright and chromium. Run it on an idle machine: latencies and rates are those of the run. The
variable WINE_DATA names the UCI red wine data; without it the predictions are no wine qualities.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import launch  # noqa: E402
from support.models import WINE, build  # noqa: E402
from support.repository import write_model, write_settings  # noqa: E402
from support.server import Server  # noqa: E402

SECONDS = 40  # of requests before the pictures
WIDTH, HEIGHT = 1280, 800
PAGES = {
    "overview": "",
    "try": "try/wine-quality",
    "model": "models/wine-quality",
    "traffic": "traffic",
}
COLORS = 256  # a picture of a page has few; without a palette it takes three times the bytes
MLFLOW = "mlserver_mlflow.MLflowRuntime"
SPLIT = {"traffic": {"weights": {"1": 90, "2": 10}, "sticky_header": "x-user"}}


def write_repository(folder: Path) -> None:
    """Write the served models into a folder."""
    wine = build()["wine"]
    shutil.copytree(wine, folder / "wine" / "model")
    body = {"dataframe_split": {"columns": list(WINE), "data": [list(WINE.values())]}}
    (folder / "wine" / "model" / "serving_input_example.json").write_text(json.dumps(body))
    uri = {"uri": "./model"}
    write_settings(folder / "wine", name="wine-quality", implementation=MLFLOW, parameters=uri)
    for version, extra in (("1", {}), ("2", SPLIT)):
        shutil.copytree(wine, folder / f"price-{version}" / "model")
        parameters = {**uri, "version": version, "extra": extra}
        target = folder / f"price-{version}"
        write_settings(target, name="price", implementation=MLFLOW, parameters=parameters)
    write_model(folder / "echo")


def create_request() -> dict[str, Any]:
    """Return a V2 request of one row."""
    inputs = [
        {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}
        for name, value in WINE.items()
    ]
    return {"inputs": inputs}


@contextmanager
def send_requests(url: str) -> Iterator[None]:
    """Send requests from two threads in the background."""
    is_over = threading.Event()
    request = create_request()

    def run(seed: int) -> None:
        choice = random.Random(seed)
        with httpx.Client(base_url=url) as client:
            while not is_over.is_set():
                name = choice.choices(["price", "wine-quality", "echo"], [60, 35, 5])[0]
                body = request if choice.random() < 0.995 else {"inputs": []}
                client.post(f"/v2/models/{name}/infer", json=body)
                time.sleep(choice.random() * 0.03)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def take(browser: Any, url: str, folder: Path, scheme: str) -> None:
    """Store a picture of each page in one colour scheme."""
    size = {"width": WIDTH, "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1.5)
    page = context.new_page()
    page.goto(f"{url}/console/")
    time.sleep(SECONDS)
    for name, fragment in PAGES.items():
        page.evaluate("fragment => { location.hash = '#/' + fragment; }", fragment)
        page.get_by_role("heading", level=1).wait_for()
        page.wait_for_timeout(2500)
        if name == "try":
            page.get_by_role("button", name="Send").click()
            page.get_by_role("status", name="Response").get_by_text("200").wait_for()
            page.wait_for_timeout(300)
        save(page.screenshot(), folder / f"console-{name}-{scheme}.png")
    context.close()


def save(content: bytes, path: Path) -> None:
    """Store a picture with a palette."""
    from PIL import Image

    Image.open(io.BytesIO(content)).convert("RGB").quantize(COLORS).save(path, optimize=True)


def main() -> None:
    """Write all pictures into the folder of the command line."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/assets/console")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, launch() as browser:
        repository = Path(folder)
        write_repository(repository)
        with Server(repository) as server, send_requests(server.url):
            for scheme in ("light", "dark"):
                take(browser, server.url, target, scheme)


if __name__ == "__main__":
    main()
