"""A shell session that runs the blocks of one documentation page, in the page's order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from .pages import ROOT, Block
from .ports import free_ports
from .server import STOP_LIMIT, clean_environment

COMMAND_LIMIT = 300.0  # seconds for one command, and for the start of a server
INSTALL_LIMIT = 1200.0  # seconds for one `pip install`
# Programs of other languages, whose commands are not run where they are missing.
OPTIONAL_PROGRAMS = ("node", "java", "openssl")
_START = re.compile(r"^mlserver (start|demo)\b.*?( &)?$")
_PIP = re.compile(r"^(python -m )?pip install\b")
_DOCUMENTED_PORTS = re.compile(r"(?<![\d.])(808[0-3])(?!\d)")
# Restores variables and folder before a command, and keeps them after it.
_SHELL = """
set -eo pipefail
[ ! -f "$SESSION_STATE/variables" ] || . "$SESSION_STATE/variables"
cd "$(cat "$SESSION_STATE/folder")"
save() {
    code=$?
    export -p > "$SESSION_STATE/variables"
    pwd > "$SESSION_STATE/folder"
    exit $code
}
trap save EXIT
"""


class PageFailed(AssertionError):
    """A command of a page failed, or printed something else than the page says."""


class PageSession:
    """Runs commands in one folder; `mlserver start` runs in the background until the next start.

    Args:
        folder: An empty folder, the page's current folder.
        python: Interpreter of the environment whose programs the page uses; None = this one, in
            which everything is installed already.
        installs: Whether to run `pip install ...`; default: if `python` is given.
        env: Further variables.
    """

    def __init__(
        self,
        folder: Path,
        python: Path | None = None,
        installs: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder / "page"
        self._state = folder / "state"
        home = folder / "home"
        for path in (self.folder, self._state, home):
            path.mkdir(parents=True)
        (self._state / "folder").write_text(str(self.folder))
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        self._installs = python is not None if installs is None else installs
        programs = (python or Path(sys.executable)).parent
        ports = free_ports(4)
        self._ports = dict(zip(("8080", "8081", "8082", "8083"), map(str, ports), strict=True))
        self._server: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"
        self._env = clean_environment(
            {
                "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
                "HOME": str(home),
                "XDG_CACHE_HOME": str(home / ".cache"),
                "SESSION_STATE": str(self._state),
                "MLSERVER_HTTP_PORT": self._ports["8080"],
                "MLSERVER_GRPC_PORT": self._ports["8081"],
                "MLSERVER_METRICS_PORT": self._ports["8082"],
                "MLSERVER_INFER_URL": f"localhost:{self._ports['8080']}",
                **(env or {}),
            }
        )
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            self._env.pop(name, None)

    def __enter__(self) -> PageSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()

    def run_block(self, block: Block) -> None:
        """Write the block's file, or run its commands. Raises `PageFailed`."""
        text = self._with_free_ports(block.text)
        if block.title:
            path = self._current_folder() / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.language == "bash":
            for command, expected in split_commands(text):
                self._run_command(command, expected, block)
        elif block.language == "python":
            program = self._state / "block.py"
            program.write_text(text)
            self._run_command(f"python {shlex.quote(str(program))}", "", block)

    def stop_server(self) -> None:
        """Stop the server as Ctrl-C does. Raises `PageFailed` if it does not exit with 0."""
        if self._server is None:
            return
        process, self._server = self._server, None
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            code = process.wait(2 * STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise PageFailed(f"the server did not stop:\n{self._log.read_text()}") from None
        if code:
            raise PageFailed(f"the server exited with {code}:\n{self._log.read_text()}")

    def _current_folder(self) -> Path:
        return Path((self._state / "folder").read_text().strip())

    def _with_free_ports(self, text: str) -> str:
        return _DOCUMENTED_PORTS.sub(lambda match: self._ports[match[1]], text)

    def _run_command(self, command: str, expected: str, block: Block) -> None:
        if _START.match(command):
            self.stop_server()
            self._start_server(command.removesuffix(" &"), block)
            return
        if _PIP.match(command) and not self._installs:
            return
        program = command.split()[0]
        if program in OPTIONAL_PROGRAMS and shutil.which(program) is None:
            return
        done = subprocess.run(
            ["bash", "-c", _SHELL + command],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_LIMIT if _PIP.match(command) else COMMAND_LIMIT,
            check=False,
        )
        where = f"line {block.line}: {command}"
        if done.returncode:
            log = self._log.read_text()[-3000:] if self._log.exists() else ""
            printed = done.stdout[-3000:] + done.stderr[-3000:]
            raise PageFailed(f"{where}\nexit code {done.returncode}\n{printed}\n{log}")
        output = done.stdout + done.stderr
        if not matches(expected, output):
            raise PageFailed(f"{where}\nexpected:\n{expected}\nreceived:\n{output}")

    def _start_server(self, command: str, block: Block) -> None:
        script = f"{_SHELL}trap - EXIT\nexec {command}"
        with self._log.open("wb") as output:
            self._server = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + COMMAND_LIMIT
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                self._server = None
                raise PageFailed(f"line {block.line}: {command}\n{self._log.read_text()}")
            if "Ready in" in self._log.read_text() and self._has_listener():
                return
            time.sleep(0.05)
        raise PageFailed(f"line {block.line}: {command}: not ready\n{self._log.read_text()}")

    def _has_listener(self) -> bool:
        try:
            for scheme in ("http", "https"):
                url = f"{scheme}://127.0.0.1:{self._ports['8080']}/v2/health/live"
                try:
                    httpx.get(url, verify=False)
                    return True
                except httpx.RemoteProtocolError:
                    continue
        except httpx.TransportError as error:
            return "CERTIFICATE_REQUIRED" in str(error).upper()
        return False


def split_commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a bash block, each with its expected output.

    A server's start is a command of its own; other lines form one command up to the next `# ...`
    lines, which are its expected output.
    """
    lines: list[str] = []
    expected: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            if lines:
                expected.append(line.removeprefix("#").removeprefix(" "))
            continue
        if expected:
            yield from _commands(lines, expected)
            lines, expected = [], []
        if line.strip():
            lines.append(line)
    if lines:
        yield from _commands(lines, expected)


def _commands(lines: list[str], expected: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what precedes a start or an installation, it, and the rest with the output."""
    rest: list[str] = []
    for line in lines:
        command = re.sub(r"\s{2,}# .*$", "", line)
        if _START.match(command) or _PIP.match(command):
            if rest:
                yield "\n".join(rest), ""
            yield command, ""
            rest = []
        else:
            rest.append(line)
    if rest:
        yield "\n".join(rest), "\n".join(expected)


def matches(expected: str, output: str) -> bool:
    """Whether the output contains the expected text; spaces do not count, `...` is any text."""
    parts = [re.escape("".join(part.split())) for part in expected.split("...")]
    return re.search(".*?".join(parts), "".join(output.split()), re.DOTALL) is not None
