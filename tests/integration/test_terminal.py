"""Output of `mlserver start` on a terminal and into a pipe: models, addresses, a request, stop."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.certificates import Authority
from support.models import Models
from support.ports import free_ports
from support.repository import write_model, write_server_settings
from support.server import START_LIMIT, STOP_LIMIT, Serve, Server, clean_environment, run_mlserver
from support.slow import slow

SLOW = """
import asyncio

from mlserver import MLModel


class Slow(MLModel):
    async def predict(self, payload):
        open(self.settings.parameters.uri, "w").close()
        await asyncio.sleep(60)
"""


class Terminal:
    """`mlserver ARGS` on a pseudo terminal of 80 columns; `text` is what it has printed."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        http, grpc, metrics = free_ports(3)
        self.url = f"http://localhost:{http}"
        variables = {
            "MLSERVER_HTTP_PORT": str(http),
            "MLSERVER_GRPC_PORT": str(grpc),
            "MLSERVER_METRICS_PORT": str(metrics),
            "TERM": "xterm",
            **(env or {}),
        }
        self._end, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlserver", *arguments],
            cwd=folder,
            env=clean_environment(variables),
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._end, 65536)
            except OSError:  # the process has exited
                return
            self.text += part.decode().replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        """Return when the terminal shows a text."""
        deadline = time.monotonic() + START_LIMIT
        while text not in self.text:
            assert self.process.poll() is None, f"it exited before {text!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {text!r}:\n{self.text}"
            time.sleep(0.02)

    def stop(self) -> int:
        """Send SIGINT, as Ctrl-C does, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(STOP_LIMIT)
        self.join()
        return code

    def join(self) -> None:
        """Read the rest of the output after the process has exited."""
        self._thread.join(STOP_LIMIT)


@contextmanager
def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    terminal = Terminal(folder, "start", *arguments, env=env)
    try:
        yield terminal
        assert terminal.stop() == 0, terminal.text
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
            terminal.process.wait(STOP_LIMIT)


def read_command(text: str) -> list[str]:
    """Return the arguments of the printed `curl` command, lines joined as a shell does."""
    joined = text.replace("\\\n", " ")
    line = next(line for line in joined.splitlines() if "curl -s" in line)
    return shlex.split(line[line.index("curl") :])


def run_command(arguments: list[str], folder: Path) -> dict[str, object]:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, timeout=60, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_terminal_shows_models_addresses_and_a_request_that_works(tmp_path: Path) -> None:
    assert run_mlserver("init", "prices", cwd=tmp_path)[0] == 0
    folder = tmp_path / "prices"
    with start(folder) as terminal:
        terminal.wait_for("Ctrl-C stops the server.")
        text = terminal.text
        assert re.search(r"^\d\d:\d\d:\d\d mlserver 2\..*loading 1 model of this folder", text)
        assert re.search(
            r"Loaded model 'prices' version 'v1' in \d+\.\d\d s \(model\.Model\)", text
        )
        for name, address in (
            ("REST", terminal.url),
            ("docs", f"{terminal.url}/v2/docs"),
        ):
            assert re.search(rf"^  {name} +{re.escape(address)}$", text, re.MULTILINE)
        assert re.search(r"^  metrics +http://localhost:\d+/metrics$", text, re.MULTILINE)
        assert re.search(r"^  gRPC +localhost:\d+$", text, re.MULTILINE)
        assert "0.0.0.0" not in text
        assert "\x1b" not in text
        answer = run_command(read_command(text), folder)
        assert "outputs" in answer
    assert "Stopping: no requests are running" in terminal.text
    assert re.search(r"Stopped in \d+\.\d\d s\n$", terminal.text)


@pytest.mark.slow
def test_the_request_of_an_mlflow_model_works(models: Models, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "wine").symlink_to(models["wine"])
    server = serve(tmp_path)
    server.wait_for_line("Ctrl-C stops the server")
    answer = run_command(read_command(str(server.log)), tmp_path)
    assert answer["model_name"] == "wine"
    assert "outputs" in answer


def test_failed_models_stand_last_in_color(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "broken", "Broken")
    (tmp_path / "invalid").mkdir()
    (tmp_path / "invalid" / "model-settings.json").write_text('{"implementation": 1}')
    with start(tmp_path) as terminal:
        terminal.wait_for("Not ready: 2 of the models")
        after = terminal.text.partition("Ctrl-C stops the server.")[2]
        assert after.count("could not be loaded") == terminal.text.count("could not be loaded") == 2
        assert "\x1b[31m" in after
        assert "run: mlserver check . --verbose" in after
        assert "invalid/model-settings.json: field 'implementation': expected a string" in after


@pytest.mark.parametrize(
    "variables",
    [{"NO_COLOR": "1"}, slow({"TERM": "dumb"}, id="TERM")],
    ids=lambda value: next(iter(value)),
)
def test_no_color(tmp_path: Path, variables: dict[str, str]) -> None:
    write_model(tmp_path / "echo")
    write_model(tmp_path / "broken", "Broken")
    with start(tmp_path, env=variables) as terminal:
        terminal.wait_for("Not ready: 1 of the models")
        assert "\x1b" not in terminal.text


def test_check_names_the_model_that_is_loading(tmp_path: Path) -> None:
    """The line is on standard error and is cleared before the result."""
    write_model(tmp_path / "echo")
    write_model(tmp_path / "other")
    terminal = Terminal(tmp_path, "check")
    assert terminal.process.wait(START_LIMIT) == 0
    terminal.join()
    for number, name in enumerate(("echo", "other"), 1):
        status = f"\r\x1b[K{name} ({number} of 2): loading ...\r\x1b[K"
        assert f"{status}{name}: ok\n" in terminal.text
    assert "2 models: ready to serve" in terminal.text


def test_a_pipe_gets_log_lines(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    server = serve(tmp_path)
    server.wait_for_line("Ctrl-C stops the server")
    for line in str(server.log).splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[mlserver\] ", line)


def test_structured_lines_have_the_values(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    server = serve(tmp_path, env={"MLSERVER_USE_STRUCTURED_LOGGING": "true"})
    server.wait_for_line("Ctrl-C stops the server")
    lines = [json.loads(line) for line in str(server.log).splitlines()]
    events = {line["event"]: line for line in lines if "event" in line}
    assert list(events) == ["start", "model_loaded", "ready", "addresses", "example"]
    assert events["start"]["models"] == ["echo"]
    assert events["model_loaded"]["runtime"] == "echo_model.Echo"
    assert events["addresses"]["addresses"]["REST"] == server.url


def test_addresses_honor_tls_the_prefix_and_what_is_off(
    serve: Serve, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificate, key = Authority(tmp_path_factory.mktemp("tls"), "ca").issue("server")
    tls = {"certificate": str(certificate), "key": str(key)}
    write_server_settings(tmp_path, tls=tls, root_path="/ml/", metrics_endpoint=None)
    write_model(tmp_path / "echo")
    server = serve(tmp_path, ready=None)
    server.wait_for_line("Ctrl-C stops the server")
    url = server.url.replace("http:", "https:")
    server.wait_for_line(f"REST {url}/ml, gRPC 127.0.0.1:{server.grpc_port}, docs {url}/ml/v2/docs")
    answer = run_command(read_command(str(server.log)), tmp_path)
    assert answer["name"] == "echo"


def test_stopping_names_the_requests_it_waits_for(tmp_path: Path) -> None:
    started = tmp_path / "started"
    write_model(tmp_path / "slow", "Slow", source=SLOW, parameters={"uri": str(started)})
    with Server(tmp_path, workers=1) as server:
        sending = threading.Thread(target=_send, args=(server,), daemon=True)
        sending.start()
        server.wait(started.exists, "the request runs")
        server.process.send_signal(signal.SIGINT)
        server.wait_for_line("waiting for requests ('slow': 1 running, 0 queued), at most 30 s")
        server.process.send_signal(signal.SIGINT)
        server.process.wait(STOP_LIMIT)
        sending.join(STOP_LIMIT)
    server.wait_for_line("Stopping at once: running requests are aborted")


def _send(server: Server) -> None:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}
    try:
        httpx.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=60)
    except httpx.HTTPError:
        return
