"""Ways to start a child process; `InterpreterLauncher` starts a new Python interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class ProcessHandle(Protocol):
    """A child process; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Return the exit code (negative: a signal), None while the process runs."""
        ...

    def wait(self) -> int:
        """Return the exit code after the process has ended. Blocks."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class Launched(NamedTuple):
    """A started process.

    Attributes:
        process: The process.
        fds: File descriptors in the process that the passed ones have become.
        is_forked: Whether it is a fork of a template process.
    """

    process: ProcessHandle
    fds: list[int]
    is_forked: bool = False


class Launcher(Protocol):
    """Starts processes of one kind."""

    async def launch(self, fds: Sequence[int]) -> Launched:
        """Start a process that inherits copies of these file descriptors.

        Raises:
            OSError: the process cannot be started.
        """
        ...


class InterpreterLauncher:
    """Starts new interpreters.

    Args:
        command: Arguments that start one; its first file descriptor is appended.
        variables: All of its environment variables.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._command = command
        self._variables = variables

    async def launch(self, fds: Sequence[int]) -> Launched:
        return Launched(self.start(fds), list(fds))

    def start(self, fds: Sequence[int]) -> subprocess.Popen[bytes]:
        # Not in a helper thread: PR_SET_PDEATHSIG kills the child when the *thread* that started it
        # ends.
        return subprocess.Popen(
            [*self._command, str(fds[0])],
            pass_fds=fds,
            env=dict(self._variables),
            stdin=subprocess.DEVNULL,
        )
