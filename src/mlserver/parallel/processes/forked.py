"""A process that a template forked and this process adopted: exit code, kill, wait."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress

from .linux import FORKING, WORKER, list_ended_children

_lock = threading.Lock()
_known: set[int] = set()


class NotAdopted(OSError):
    """The forked process did not become a child of this process."""


class ForkedProcess:
    """A child process of this process, like `subprocess.Popen`.

    Args:
        pid: Its process id.

    Raises:
        NotAdopted: it is no child of this process; it is killed.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self.kill()
            os.close(self._pidfd)
            raise NotAdopted(f"process {pid} is not a child of the server") from None
        with _lock:
            _known.add(pid)

    def poll(self) -> int | None:
        with _lock:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # SIGCHLD is ignored in this process: no status is kept
                    pid, status = self.pid, 0
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                    _known.discard(self.pid)
            return self.returncode

    def wait(self) -> int:
        """Return the exit code after the process has ended. Blocks; call it once."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        try:
            poller.poll()
            while (code := self.poll()) is None:
                poller.poll()
            return code
        finally:
            os.close(self._pidfd)

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def reap_strays() -> None:
    """Wait for ended processes of an interrupted fork, whose ids no template has reported."""
    for name in (FORKING, WORKER):
        for pid in list_ended_children(name):
            with _lock:
                if pid not in _known:
                    with suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
