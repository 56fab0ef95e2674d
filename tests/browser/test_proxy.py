"""The console behind nginx, under the prefix of a location."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.browser import OpenConsole, see_heading
from support.ports import free_ports
from support.repository import write_model
from support.server import Server
from support.slow import slow

# `/serving` is passed on as it is, as `root_path` says; `/other/` is removed from the path.
CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    proxy_set_header Host $http_host;
    server {{
        listen 127.0.0.1:{port};
        location /serving {{ proxy_pass {upstream}; }}
        location /other/ {{ proxy_pass {upstream}/; }}
    }}
}}
"""


@contextmanager
def serve_nginx(folder: Path, upstream: str) -> Iterator[str]:
    """Run nginx in front of a server; yields its URL. Skips the test where there is no nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx: apt-get install nginx-light")
    (port,) = free_ports(1)
    folder.mkdir()
    configuration = folder / "nginx.conf"
    text = CONFIGURATION.format(folder=folder, port=port, upstream=upstream)
    configuration.write_text(text)
    process = subprocess.Popen([program, "-p", folder, "-c", configuration])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def is_open(url: str) -> bool:
    try:
        return httpx.get(f"{url}/other/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with `root_path`, and the URL of nginx in front of it."""
    folder = tmp_path_factory.mktemp("proxied")
    write_model(folder / "echo", inputs=[{"name": "x", "datatype": "FP64", "shape": [-1, 1]}])
    with (
        Server(folder, workers=0, env={"MLSERVER_ROOT_PATH": "/serving"}) as server,
        serve_nginx(folder / "nginx", server.url) as url,
    ):
        server.wait(lambda: is_open(url), "nginx listens")
        yield server, url


@pytest.mark.parametrize("prefix", ["/serving", slow("/other")])
def test_behind_nginx(proxied: tuple[Server, str], open_console: OpenConsole, prefix: str) -> None:
    server, url = proxied
    console = open_console(server, at=url, prefix=prefix)
    page = console.open("try/echo")
    page.get_by_label("x", exact=True).fill("2.5")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("status", name="Response").get_by_text("2.5", exact=True).wait_for()
    code = page.get_by_role("region", name="Code", exact=True)
    for language, address in (
        ("Python", f"{url}{prefix}/v2/"),
        ("tritonclient", f"{url}{prefix}".removeprefix("http://")),
        ("gRPC", f"127.0.0.1:{server.grpc_port}"),
    ):
        page.get_by_role("tab", name=language, exact=True).click()
        assert address in code.inner_text()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code.inner_text()],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "2.5" in done.stdout
    page.goto(f"{url}{prefix}/")
    see_heading(page, "Overview")
    assert page.url == f"{url}{prefix}/console/"


@pytest.mark.slow
def test_a_root_path_without_a_proxy(
    proxied: tuple[Server, str], open_console: OpenConsole
) -> None:
    console = open_console(proxied[0], prefix="/serving")
    page = console.open("try/echo")
    page.get_by_label("x", exact=True).fill("2.5")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("status", name="Response").get_by_text("2.5", exact=True).wait_for()
    page.goto(proxied[0].url + "/serving/")
    see_heading(page, "Overview")
    assert page.url == proxied[0].url + "/serving/console/"
