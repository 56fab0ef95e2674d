"""A server process for tests, with its log and an HTTP client.

    with Server(folder) as server:
        server.get("/v2/health/ready")

The end of the block sends SIGTERM and checks that the server exits in time, with code 0, without a
traceback in its log and without a child process that survives it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

import httpx

from support.ports import free_ports

# Seconds from the start to ready: importing MLflow takes a few, more on a busy machine.
START_LIMIT = 100.0
# Seconds for the processes of a killed server to end.
NOTICE_LIMIT = 10.0
STOP_LIMIT = 15.0  # seconds from SIGTERM to the exit
TEMPLATE_NAMES = ("mlserver-templ", "mlserver-fork")
# Seconds for replicas, whose processes Ray starts one after the other on a machine of few cores.
RAY_START_LIMIT = 400.0
# In place of a number of workers: the engine `ray`.
RAY: Final = "ray"
# Variables of servers with the engine `ray`; the fixture `ray_cluster` sets them.
ray_variables: dict[str, str] = {}
POLL_INTERVAL = 0.05  # seconds between two tries of a condition if no log line arrives


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without the variables that configure a server, plus `extra`."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLSERVER_", "MLFLOW_"))
    }
    return {**variables, "PYTHONUNBUFFERED": "1", **(extra or {})}


def run_mlserver(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str]:
    """Run `mlserver ARGS` until it exits. Returns the exit code and its output."""
    completed = subprocess.run(
        [sys.executable, "-m", "mlserver", *args],
        env=clean_environment(env),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_LIMIT,
        check=False,
    )
    return completed.returncode, completed.stdout


def create_client(url: str = "", **options: Any) -> httpx.Client:
    """An HTTP client without TLS: the certificates of httpx's default take 26 ms to load."""
    return httpx.Client(base_url=url, timeout=30, verify=False, **options)


def fetch(url: str) -> httpx.Response:
    """GET over a connection of its own."""
    with create_client() as client:
        return client.get(url)


def read_name(pid: int) -> str:
    """The name of a process as `ps` shows it; "" = it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Log:
    """The output of a process, read line by line in a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._new_line = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(process,), name="log", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        with self._new_line:
            return "".join(self._lines)

    def __contains__(self, text: str) -> bool:
        return text in str(self)

    def wait_for_line(self, timeout: float) -> None:
        """Return at the next line, or after `timeout` seconds."""
        with self._new_line:
            self._new_line.wait(timeout)

    def close(self) -> None:
        """Read the rest of the output after the process has exited."""
        self._thread.join(STOP_LIMIT)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with self._new_line:
                    self._lines.append(line)
                    self._new_line.notify_all()


def check_exit(
    name: str,
    code: int | None,
    log: Log,
    error: BaseException | None,
    allows_tracebacks: bool = False,
) -> None:
    """Fail unless a process has exited with code 0 and has logged no traceback.

    Args:
        name: What the process is, for messages.
        code: Its exit code; None = killed.
        error: The exception that ends the block of the process; its log is added as a note, and
            nothing else is checked.
    """
    if error is not None:
        error.add_note(f"The {name}'s log:\n{log}")
        return
    assert code == 0, f"the {name} exited with {code} (None: it was killed):\n{log}"
    assert allows_tracebacks or "Traceback" not in log, f"a traceback in the log:\n{log}"


class Server:
    """`mlserver start FOLDER` in a process, on free ports of 127.0.0.1.

    Args:
        folder: The model repository; also the working directory unless `cwd` is given.
        argument: The argument of `start`; default: the folder's path.
        env: Environment variables that override the ports and the address chosen here.
        workers: `MLSERVER_PARALLEL_WORKERS`; None leaves the server's default. `RAY`: the models
            run in the session's Ray cluster (see the fixture `ray_cluster`).
        cwd: The working directory.
        ready: A path; `__enter__` returns when it answers 200. None: return at once.
        tracebacks: Whether the log may contain tracebacks (a model's exception is logged with one).

    Attributes:
        prefix: A command that runs the server's command, such as `prlimit ...`; for subclasses.
    """

    prefix: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        *,
        argument: str | None = None,
        env: Mapping[str, str] | None = None,
        workers: int | Literal["ray"] | None = None,
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
        self._env = clean_environment(self._default_env(workers) | dict(env or {}))
        is_ray = self._env.get("MLSERVER_ENGINE") == RAY
        self._limit = RAY_START_LIMIT if is_ray else START_LIMIT

    def _default_env(self, workers: int | Literal["ray"] | None) -> dict[str, str]:
        ports = {
            "HTTP_PORT": self.http_port,
            "GRPC_PORT": self.grpc_port,
            "METRICS_PORT": self.metrics_port,
        }
        variables = {f"MLSERVER_{name}": str(port) for name, port in ports.items()}
        variables["MLSERVER_HOST"] = "127.0.0.1"
        if workers == RAY:
            return {**variables, **ray_variables}
        if workers is not None:
            variables["MLSERVER_PARALLEL_WORKERS"] = str(workers)
        return variables

    # -- start and stop --

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # one process group, see `list_processes`
        )
        self.log = Log(self.process)
        self.client = create_client(self.url, follow_redirects=True)
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
        traceback: TracebackType | None,
    ) -> None:
        check_exit("server", self.stop(), self.log, error, self._tracebacks)
        if error is None:
            assert not self.surviving_processes, (
                f"processes that survived the server: {self.surviving_processes}\n{self.log}"
            )

    def _end(self, number: signal.Signals) -> int | None:
        """Signal the process and wait. Returns its exit code, or None if it was killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code: int | None = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        self.surviving_processes = self.list_processes()
        # A killed server's processes notice its end; one that ends by itself waits for them.
        deadline = time.monotonic() + (NOTICE_LIMIT if code == -signal.SIGKILL else 0)
        while self.surviving_processes and time.monotonic() < deadline:
            time.sleep(0.02)
            self.surviving_processes = self.list_processes()
        if self.surviving_processes:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_LIMIT)
        # Not before: a request of another thread that is answered meanwhile would keep its
        # connection open, and the warning about its socket would fail a later test.
        self.client.close()
        self.log.close()
        return code

    def stop(self) -> int | None:
        """Stop the server with SIGTERM. Returns its exit code, or None if it was killed."""
        return self._end(signal.SIGTERM)

    def list_processes(self) -> list[int]:
        """Ids of the live processes in the server's group, with the server and without zombies."""
        pids = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                # Waits call this again and again: a call of the system, not a file, per process.
                if os.getpgid(pid) != self.process.pid:
                    continue
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                pids.append(pid)
        return sorted(pids)

    @property
    def workers(self) -> list[int]:
        """Ids of the server's live child processes that serve requests or models."""
        others = {self.process.pid, *self.templates}
        return [pid for pid in self.list_processes() if pid not in others]

    @property
    def templates(self) -> list[int]:
        """Ids of the template processes, and of those between one and its new worker."""
        return [pid for pid in self.list_processes() if read_name(pid) in TEMPLATE_NAMES]

    # -- waiting --

    def wait(self, condition: Callable[[], bool], what: str, limit: float | None = None) -> None:
        """Return when `condition()` holds.

        Tried at every log line and every `POLL_INTERVAL` seconds.
        """
        limit = self._limit if limit is None else limit
        deadline = time.monotonic() + limit
        while not condition():
            if self.process.poll() is not None:
                self.log.close()
                if condition():
                    return
                raise AssertionError(
                    f"the server exited with {self.process.returncode} before {what}:\n{self.log}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"{limit} s passed before {what}:\n{self.log}")
            self.log.wait_for_line(POLL_INTERVAL)

    def wait_until(self, path: str, status: int = 200, limit: float | None = None) -> None:
        """Return when GET `path` answers with `status`."""

        def answers() -> bool:
            try:
                return self.client.get(path).status_code == status
            except httpx.TransportError:
                return False

        self.wait(answers, f"GET {path} answered {status}", limit)

    def wait_for_line(self, text: str, limit: float | None = None) -> None:
        """Return when the log contains `text`."""
        self.wait(lambda: text in self.log, f"the log contained {text!r}", limit)

    # -- requests --

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST `body`: bytes and text unchanged, other values as JSON."""
        if not isinstance(body, (bytes, str)):
            body = b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | dict(options.pop("headers", {}))
        return self.client.post(path, content=body, headers=headers, **options)

    def infer(self, model: str, inputs: list[dict[str, Any]], **fields: Any) -> httpx.Response:
        """POST a V2 request with these inputs and further top-level fields to `model`."""
        return self.post(f"/v2/models/{model}/infer", {"inputs": inputs, **fields})


class Serve(Protocol):
    """Type of the fixture `serve`."""

    def __call__(self, folder: Path, **options: Any) -> Server: ...
