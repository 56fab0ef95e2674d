"""A child process of the server (model worker or HTTP worker): start, connection, exit."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

from ..logging import get_logger
from .out_of_memory import get_kills
from .processes.exit_codes import classify_exit
from .processes.launchers import Launcher, ProcessHandle
from .rpc.client import RPCClient, WorkerDied
from .rpc.fd_passing import create_control_sockets, send_fd
from .rpc.protocol import Frame, FrameError, MessageType

logger = get_logger()
_numbers = itertools.count(1)


class ChildProcess(RPCClient):
    """A process and the calls that it has not answered.

    Args:
        launcher: Starts it; it receives the descriptor of its end of the connection first.
        on_exit: Called once on the loop when the process has ended.
        on_notification: Called with each frame that answers no call.
        accepts_fds: Whether sockets can be passed to it (see `send_fd`).

    Attributes:
        number: Unique among all child processes of this server.
        is_forked: Whether it is a fork of a template process.
        abandoned_calls: By model key, the functions that run although their callers are gone.
    """

    def __init__(
        self,
        launcher: Launcher,
        on_exit: Callable[[ChildProcess], None],
        on_notification: Callable[[Frame], None],
        accepts_fds: bool = False,
    ) -> None:
        super().__init__(on_notification)
        self._launcher = launcher
        self._on_exit = on_exit
        self._accepts_fds = accepts_fds
        self._process: ProcessHandle | None = None
        self._ready: asyncio.Future[None] | None = None
        self._exit_code: asyncio.Future[int] | None = None
        self._is_stopping = False
        self._pidfd: int | None = None
        self._control_socket: socket.socket | None = None
        self.number = next(_numbers)
        self.is_forked = False
        self.abandoned_calls: dict[str, int] = {}
        self._is_stuck = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self, init: dict[str, Any], timeout: float) -> None:
        """Start the process, wait for READY and send INIT.

        Args:
            init: Head of the INIT frame; `control_fd` is added if the process accepts sockets.

        Raises:
            WorkerDied: the process ended first.
            TimeoutError: it did not answer within `timeout` seconds after its start.
            OSError: it could not be started.
        """
        self._ready = asyncio.get_running_loop().create_future()
        server_end, child_end = socket.socketpair()
        child_ends = [child_end]
        if self._accepts_fds:
            self._control_socket, child_control = create_control_sockets()
            child_ends.append(child_control)
        try:
            launched = await self._launcher.launch([end.fileno() for end in child_ends])
        except BaseException:
            server_end.close()
            if self._control_socket is not None:
                self._control_socket.close()
            raise
        finally:
            for end in child_ends:
                end.close()
        self._process, self.is_forked = launched.process, launched.is_forked
        if self._accepts_fds:
            init = {**init, "control_fd": launched.fds[1]}
        await self.open(server_end)
        self._watch_exit(self._process.pid)
        async with asyncio.timeout(timeout):
            await self._ready
            await self.call(MessageType.INIT, init)

    def _watch_exit(self, pid: int) -> None:
        """Detect the exit of the process even if a child of it keeps the connection open."""
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_closed, None)

    def send_fd(self, connection: socket.socket, number: int) -> None:
        """Pass a socket that is connected to another process.

        Raises:
            OSError: the process accepts none, or is gone.
        """
        if self._control_socket is None or self.is_gone:
            raise OSError("this process accepts no sockets")
        send_fd(self._control_socket, connection, number)

    # -- frames of the process --

    def _on_other_frame(self, frame: Frame) -> None:
        if frame.kind != MessageType.READY:
            super()._on_other_frame(frame)
        elif self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _on_closed(self, reason: Exception | None) -> None:
        """The connection is closed or the process has ended."""
        if self.is_gone:
            return
        if isinstance(reason, FrameError):
            logger.error("Process %s sent an invalid frame, killing it: %s", self.pid, reason)
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._control_socket is not None:
            self._control_socket.close()
        if not self._is_stopping:  # `stop` waits for `grace` seconds first
            self.kill()
        self._wait()  # now: the task that would reap the process may be cancelled before it runs
        super()._on_closed(reason)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(WorkerDied())
            self._ready.exception()  # marks it as retrieved
        self._on_exit(self)

    # -- the end --

    def kill(self) -> None:
        """Send SIGKILL. `on_exit` reports the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def kill_stuck(self) -> None:
        """Send SIGKILL to a process that does not react."""
        self._is_stuck = True
        self.kill()

    def classify_exit(self, code: int) -> str:
        """Return one of `exit_codes.EXIT_REASONS` for the exit code of this process."""
        return classify_exit(code, self._is_stuck, get_kills().has_recent())

    async def reap(self) -> int:
        """Wait for the exit of the process; return its exit code (negative: a signal).

        0 if it was not started.
        """
        if self._process is None:
            return 0
        return await asyncio.shield(self._wait())

    def _wait(self) -> asyncio.Future[int]:
        """Return the future exit code.

        A thread waits for it, which no cancellation of a task ends.
        """
        assert self._process is not None
        if self._exit_code is None:
            self._exit_code = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        return self._exit_code

    async def stop(self, grace: float) -> None:
        """Close the connection, which ends an idle process; kill it after `grace` seconds."""
        if self._process is None:
            return
        self._is_stopping = True
        self.close()
        try:
            async with asyncio.timeout(grace):
                await self.reap()
        except TimeoutError:
            self.kill()
            await self.reap()
