"""`mlserver demo`: trains, registers, serves, prints requests that work, and leaves no files."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import STOP_LIMIT, Log, clean_environment, run_mlserver

ANY_PORT = ["--grpc-port", "0", "--metrics-port", "0"]
LAST_LINE = "The model's inputs"
TRAINING_LIMIT = 100.0  # seconds, on a busy machine


@pytest.mark.slow
def test_the_printed_requests_work_and_nothing_remains(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        variables = {"TMPDIR": str(temporary), "MLSERVER_HTTP_PORT": port}
        process = subprocess.Popen(
            [sys.executable, "-m", "mlserver", "demo", *ANY_PORT],
            cwd=tmp_path,
            env=clean_environment(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log = Log(process)
        try:
            for _ in range(int(TRAINING_LIMIT / 0.1)):
                if LAST_LINE in log or process.poll() is not None:
                    break
                log.wait_for_line(0.1)
            log.wait_for_line(0.2)
            assert LAST_LINE in log, str(log)
            assert f"Port {port} (http_port) is in use: taking a free one." in log
            _check_requests(str(log), tmp_path)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(STOP_LIMIT)
            log.close()
    assert code == 0, str(log)
    assert list(temporary.iterdir()) == []


def _check_requests(text: str, folder: Path) -> None:
    """Run every command that is printed."""
    commands = re.findall(r"(?:^  |: )((?:curl|mlserver infer) .*)$", text, re.MULTILINE)
    assert len(commands) == 4, text
    for command in commands:
        line = command.replace("mlserver", f"{sys.executable} -m mlserver", 1)
        is_scoring = command.startswith("mlserver")
        done = subprocess.run(  # noqa: S602 - as a user pastes it
            line if is_scoring else command,
            shell=True,
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        if is_scoring:
            assert (folder / "classes.csv").read_text().count("\n") == 21
        else:
            assert json.loads(done.stdout).keys() & {"outputs", "predictions", "inputs"}, done


def test_a_busy_port_of_an_option_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        code, text = run_mlserver("demo", "--http-port", port)
    assert (code, text) == (2, f"mlserver: --http-port: port {port} is in use\n")
