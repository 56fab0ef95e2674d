"""A real server as a test's neighbour: started as a process, watched through its log, asked over HTTP, ended by its id.

    with Server(folder) as server:
        server.get("/v2/health/ready")

Leaving the block sends SIGTERM and checks that the server ended in time, with code 0, without a traceback in its log and
without a process left behind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

START_LIMIT = (
    60.0  # seconds from start to ready; loading MLflow itself takes a few, more on a busy machine
)
STOP_LIMIT = 15.0  # seconds from SIGTERM to the end
_draw = random.SystemRandom()  # a test may seed the common generator
LOOK_AGAIN = (
    0.05  # seconds after which an unanswered question is asked again, if no log line came first
)


# Below the ports that systems give to connections that go out: those may be taken between the choice and the server's start.
PORTS = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, drawn at random: other processes of tests draw too."""
    found: list[int] = []
    while len(found) < count:
        port = _draw.choice(PORTS)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            found.append(port)
    return found if len(set(found)) == count else free_ports(count)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that configures a server, plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLSERVER_", "MLFLOW_"))
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


def run_mlserver(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str]:
    """Run the command line to its end. Returns the exit code and everything it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mlserver", *args],
        env=clean_environment(env),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_LIMIT,
        check=False,
    )
    return done.returncode, done.stdout


class Log:
    """What a process prints, line by line, with a way to wait for more."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(process,), name="log", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        with self._news:
            return "".join(self._lines)

    def __contains__(self, text: str) -> bool:
        return text in str(self)

    def wait_for_news(self, timeout: float) -> None:
        """Return at the next line, or after `timeout` seconds."""
        with self._news:
            self._news.wait(timeout)

    def close(self) -> None:
        """Read what is left after the process has ended."""
        self._thread.join(STOP_LIMIT)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()


class Server:
    """`mlserver start FOLDER` as a process on free ports of 127.0.0.1.

    Args:
        folder: The model repository; also the process's working directory unless `cwd` is given.
        argument: What stands behind `start`; default: the folder's path.
        env: More environment variables. They win over the ports and the address chosen here.
        workers: `MLSERVER_PARALLEL_WORKERS`; None leaves the server's default.
        cwd: Where the command is run.
        ready: What to wait for: a path that must answer 200. None returns as soon as the process runs.
        tracebacks: Whether the log may hold one (a model's own failure is worth showing whole).

    Attributes:
        prefix: A command that runs the server's command in its place; for subclasses.
    """

    prefix: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        *,
        argument: str | None = None,
        env: Mapping[str, str] | None = None,
        workers: int | None = None,
        cwd: Path | None = None,
        ready: str | None = "/v2/health/ready",
        tracebacks: bool = False,
    ) -> None:
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
        self._command = [
            *self.prefix,
            sys.executable,
            "-m",
            "mlserver",
            "start",
            argument or str(folder),
        ]
        self._cwd = cwd or folder
        self.folder = folder
        self._ready, self._tracebacks = ready, tracebacks
        self._env = clean_environment(self._own_env(workers) | dict(env or {}))

    def _own_env(self, workers: int | None) -> dict[str, str]:
        ports = {
            "HTTP_PORT": self.http_port,
            "GRPC_PORT": self.grpc_port,
            "METRICS_PORT": self.metrics_port,
        }
        own = {f"MLSERVER_{name}": str(port) for name, port in ports.items()} | {
            "MLSERVER_HOST": "127.0.0.1"
        }
        return own if workers is None else own | {"MLSERVER_PARALLEL_WORKERS": str(workers)}

    # -- its life --

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # the server and its workers form one process group: see `family`
        )
        self.log = Log(self.process)
        self.client = httpx.Client(base_url=self.url, timeout=30, follow_redirects=True)
        if self._ready is not None:
            try:
                self.wait_until(self._ready)
            except BaseException:
                self._end(signal.SIGKILL)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        code = self.stop()
        if error is not None:
            error.add_note(f"The server's log:\n{self.log}")
            return
        assert code == 0, f"the server ended with {code} (None: it had to be killed):\n{self.log}"
        assert not self.left_behind, f"processes left behind: {self.left_behind}\n{self.log}"
        assert self._tracebacks or "Traceback" not in self.log, (
            f"a traceback in the log:\n{self.log}"
        )

    def _end(self, number: signal.Signals) -> int | None:
        """Signal the process unless it is gone, and wait. Returns its exit code; None = it had to be killed."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code: int | None = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        self.left_behind = self.family()
        if self.left_behind:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_LIMIT)
        self.log.close()
        return code

    def stop(self) -> int | None:
        """End the server now, by SIGTERM. Returns its exit code; None = it had to be killed."""
        return self._end(signal.SIGTERM)

    def family(self) -> list[int]:
        """Ids of the live processes of the server's group: itself and its workers (zombies do not count)."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = entry.read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(entry.parent.name))
        return sorted(found)

    @property
    def workers(self) -> list[int]:
        """Ids of the live processes beside the server itself."""
        return [pid for pid in self.family() if pid != self.process.pid]

    # -- waiting --

    def wait(self, condition: Callable[[], bool], what: str, limit: float = START_LIMIT) -> None:
        """Return when `condition()` holds; it is tried at every log line, and now and then without one."""
        deadline = time.monotonic() + limit
        while not condition():
            if self.process.poll() is not None:
                self.log.close()
                raise AssertionError(
                    f"the server ended with {self.process.returncode} before {what}:\n{self.log}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"{limit} s passed before {what}:\n{self.log}")
            self.log.wait_for_news(LOOK_AGAIN)

    def wait_until(self, path: str, status: int = 200, limit: float = START_LIMIT) -> None:
        """Return when GET `path` answers with `status`."""

        def answers() -> bool:
            try:
                return self.client.get(path).status_code == status
            except httpx.TransportError:
                return False

        self.wait(answers, f"GET {path} answered {status}", limit)

    def wait_for_line(self, text: str, limit: float = START_LIMIT) -> None:
        """Return when `text` stands in the log."""
        self.wait(lambda: text in self.log, f"the log said {text!r}", limit)

    # -- asking --

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST `body`: bytes and text as they are, anything else as JSON."""
        if not isinstance(body, (bytes, str)):
            body = b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | dict(options.pop("headers", {}))
        return self.client.post(path, content=body, headers=headers, **options)

    def infer(self, model: str, inputs: list[dict[str, Any]], **fields: Any) -> httpx.Response:
        """POST a V2 request of these inputs (and further top-level fields) to `model`."""
        return self.post(f"/v2/models/{model}/infer", {"inputs": inputs, **fields})


class Serve(Protocol):
    """The fixture `serve`."""

    def __call__(self, folder: Path, **options: Any) -> Server: ...
