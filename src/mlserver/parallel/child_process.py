"""One process that the server started, a worker or a further front end: started, called, watched, ended."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..logging import get_logger
from .rpc.client import RPCClient, WorkerDied
from .rpc.fd_passing import create_control_sockets, send_fd
from .rpc.protocol import Frame, FrameError, MessageType

logger = get_logger()
_numbers = itertools.count(1)


class ChildProcess(RPCClient):
    """A process and the calls that it has not answered.

    Args:
        command: Arguments that start it; the number of its end of the channel is appended.
        environment: Its whole environment.
        on_exit: Called once on the loop when the process is gone, however it went.
        on_notification: Called with each frame that is no answer.
        accepts_fds: Whether further connections can be handed to it (see `send_fd`).

    Attributes:
        number: Like no other process's of this server, ever.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_exit: Callable[[ChildProcess], None],
        on_notification: Callable[[Frame], None],
        accepts_fds: bool = False,
    ) -> None:
        super().__init__(on_notification)
        self._command = command
        self._environment = environment
        self._on_exit = on_exit
        self._takes_connections = accepts_fds
        self._process: subprocess.Popen[bytes] | None = None
        self._hello: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[int] | None = None
        self._stopping = False
        self._pidfd: int | None = None
        self._control_socket: socket.socket | None = None
        self.number = next(_numbers)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self, init: dict[str, Any], timeout: float) -> None:
        """Start the process and shake hands. Raises `WorkerDied` if it ends first, `TimeoutError` if it hangs."""
        loop = asyncio.get_running_loop()
        mine, theirs = socket.socketpair()
        theirs_of_post: socket.socket | None = None
        if self._takes_connections:
            self._control_socket, theirs_of_post = create_control_sockets()
        self._hello = loop.create_future()
        ends = [end for end in (theirs, theirs_of_post) if end is not None]
        try:
            # Not in a helper thread: the kernel ends a worker when the *thread* that started it ends.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [*self._command, str(theirs.fileno())],
                pass_fds=[end.fileno() for end in ends],
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
            )
        finally:
            post_number = None if theirs_of_post is None else theirs_of_post.fileno()
            for end in ends:
                end.close()
        await self.open(mine)
        if hasattr(os, "pidfd_open"):
            # The channel alone does not tell: a child that the model forked may hold the worker's end open.
            self._pidfd = os.pidfd_open(self._process.pid)
            loop.add_reader(self._pidfd, self._on_closed, None)
        async with asyncio.timeout(timeout):
            await self._hello
            await self.call(
                MessageType.INIT, init if post_number is None else {**init, "post": post_number}
            )

    def send_fd(self, connection: socket.socket, number: int) -> None:
        """Give the process a connection of its own to somebody else. Raises `OSError` if it takes none."""
        if self._control_socket is None or self.gone:
            raise OSError("this process takes no connections")
        send_fd(self._control_socket, connection, number)

    # -- what comes from it --

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind != MessageType.READY:
            super()._on_frame(frame)
        elif self._hello is not None and not self._hello.done():
            self._hello.set_result(None)

    def _on_closed(self, reason: Exception | None) -> None:
        """The channel broke or the process ended."""
        if self.gone:
            return
        if isinstance(reason, FrameError):
            logger.error(
                "Process %s sent bytes that are no frame; it is ended: %s", self.pid, reason
            )
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._control_socket is not None:
            self._control_socket.close()
        if not self._stopping:  # then it has its time to end by itself
            self.kill()
        self._wait()  # whoever was to reap it may be cancelled before it begins
        super()._on_closed(reason)
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(WorkerDied())
            self._hello.exception()
        self._on_exit(self)

    # -- the end --

    def kill(self) -> None:
        """SIGKILL, at once. Ending is reported through `on_exit`."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def reap(self) -> int:
        """Wait for the process to be gone; its exit code (negative: the signal that ended it)."""
        return await asyncio.shield(self._wait())

    def _wait(self) -> asyncio.Future[int]:
        """The exit code to come: a thread waits for it, and no cancellation ends that."""
        assert self._process is not None
        if self._ended is None:
            self._ended = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        return self._ended

    async def retire(self, grace: float) -> None:
        """Answer what was asked, then end."""
        try:
            await self.wait_idle()
        finally:
            await self.stop(grace)

    async def stop(self, grace: float) -> None:
        """Close the channel, which ends a worker that is not busy; kill what is left after `grace` seconds."""
        if self._process is None:
            return
        self._stopping = True
        self.close()
        try:
            async with asyncio.timeout(grace):
                await self.reap()
        except TimeoutError:
            self.kill()
            await self.reap()


def describe_exit(code: int) -> str:
    """An exit code of `Popen` in words."""
    if code >= 0:
        return f"exit code {code}"
    import signal

    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
