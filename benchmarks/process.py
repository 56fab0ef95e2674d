"""Processes of a server: started, found by a variable in their environment, measured, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCH_RUN"
PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
STOP_LIMIT = 20.0  # seconds for a graceful shutdown
POLL_INTERVAL = 0.1
IDLE_LIMIT = 10.0  # seconds for a server to finish the requests of a load
IDLE_SHARE = 0.3  # of one core: a server below it is idle


@dataclass(frozen=True)
class Memory:
    """Memory in megabytes, of the started process and of all; PSS counts shared pages once."""

    parent_rss: float
    parent_pss: float
    all_rss: float
    all_pss: float
    processes: int


@dataclass(frozen=True)
class Cpu:
    """CPU seconds by process id, since the start of each process."""

    seconds: dict[int, float]
    names: dict[int, str]


class ServerProcess:
    """Context manager: a server with all its descendant processes, which end with the block."""

    def __init__(
        self, command: list[str], environment: dict[str, str], folder: Path, log: Path
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._command = command
        self._environment = environment | {MARK: self.mark}
        self._folder = folder
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def __enter__(self) -> ServerProcess:
        with self.log.open("wb") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + STOP_LIMIT / 4
        while self.pids() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        for pid in self.pids():
            _kill(pid)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def pids(self) -> list[int]:
        """Return the ids of the running processes with the mark."""
        marker = f"{MARK}={self.mark}".encode()
        return [
            int(entry.name)
            for entry in PROC.iterdir()
            if entry.name.isdigit() and _has_marker(entry, marker)
        ]

    def names(self) -> dict[int, str]:
        """Return the names of the running processes by their ids, as `ps` shows them."""
        return {pid: (PROC / str(pid) / "comm").read_text().strip() for pid in self.pids()}

    def memory(self) -> Memory:
        sizes = {pid: _sizes(pid) for pid in self.pids()}
        own = sizes.get(self.pid, (0.0, 0.0))
        all_rss, all_pss = (sum(size[index] for size in sizes.values()) for index in (0, 1))
        return Memory(own[0], own[1], all_rss, all_pss, len(sizes))

    def cpu(self) -> Cpu:
        pids = self.pids()
        return Cpu({pid: _cpu_seconds(pid) for pid in pids}, {pid: _name(pid) for pid in pids})

    def wait_idle(self) -> None:
        """Wait until the server is idle: load tools exit without their last responses."""
        deadline = time.monotonic() + IDLE_LIMIT
        before = sum(self.cpu().seconds.values())
        while time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL * 2)
            now = sum(self.cpu().seconds.values())
            if now - before < IDLE_SHARE * POLL_INTERVAL * 2:
                return
            before = now

    def last_lines(self, count: int = 3) -> str:
        """Return the end of the log, for the reason why a server did not start."""
        lines = [
            line.strip()
            for line in self.log.read_text(errors="replace").splitlines()
            if line.strip()
        ]
        return " | ".join(lines[-count:])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _has_marker(entry: Path, marker: bytes) -> bool:
    try:
        return marker in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _sizes(pid: int) -> tuple[float, float]:
    """Return RSS and PSS in megabytes."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return sizes.get("Rss", 0) / 1024, sizes.get("Pss", 0) / 1024


def _cpu_seconds(pid: int) -> float:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _name(pid: int) -> str:
    """Return the command without folders, shortened for a table."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return " ".join(Path(word).name if word.startswith("/") else word for word in words if word)[
        :80
    ]
