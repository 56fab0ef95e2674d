"""The supervisor's view of one HTTP worker process: acknowledged state, connections, counts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..parallel.child_process import ChildProcess
from ..parallel.processes.launchers import InterpreterLauncher
from ..parallel.rpc.client import WorkerDied
from ..parallel.rpc.dispatcher import RPCDispatcher, RPCHandler
from ..parallel.rpc.protocol import Frame, MessageType

logger = get_logger()

# Seconds in which an HTTP worker sends its last spans and writes the last events of payload logs,
# which have 2 s each at the same time.
FLUSH_LIMIT = 3.0


class HTTPWorkerProcess(ChildProcess):
    """An HTTP worker process.

    Args:
        index: Its position among the HTTP workers; its replacement has the same.
        handlers: Run the calls that it makes.
        on_exit: Called once when it has ended.
        on_notification: Called with each other frame that it sends.

    Attributes:
        is_serving: Whether it listens on the server's ports.
        acknowledged_revision: Revision of the last state that it acknowledged; -1 = none yet.
        sent_models: Keys of the models whose settings and info it has received.
        connected_workers: Numbers of the model workers that it has a connection to.
        counts: Its last answer to COLLECT_STATS.
        errors: Its last answer to COLLECT_ERRORS.
        state_changed: Set while a newer state than the last published one exists.
    """

    def __init__(
        self,
        index: int,
        handlers: Mapping[int, RPCHandler],
        on_exit: Callable[[HTTPWorkerProcess], None],
        on_notification: Callable[[HTTPWorkerProcess, Frame], None],
    ) -> None:
        dispatcher = RPCDispatcher(handlers, self.send)

        def receive(frame: Frame) -> None:
            if not dispatcher.dispatch(frame):
                on_notification(self, frame)

        command = [sys.executable, "-m", "mlserver.http_workers.worker"]
        launcher = InterpreterLauncher(command, os.environ)
        super().__init__(launcher, lambda _: on_exit(self), receive, accepts_fds=True)
        self.index = index
        self.started_at = time.monotonic()
        self.is_serving = False
        self.acknowledged_revision = -1
        self.sent_models: set[str] = set()
        self.connected_workers: set[int] = set()
        self.counts: dict[str, Any] = {"metrics": {}, "statistics": []}
        self.errors: dict[str, Any] = {"errors": [], "counts": {}}
        self.state_changed = asyncio.Event()
        self.state_changed.set()

    async def try_call(self, kind: MessageType, head: Any, timeout: float | None) -> Any:
        """Return the head of the answer, None if there is none within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return (await self.call(kind, head)).head
        except (WorkerDied, MLServerError, TimeoutError):
            return None

    async def wait_changed(self, timeout: float) -> bool:
        """Wait for a newer state, up to `timeout` seconds; return whether there is one."""
        try:
            async with asyncio.timeout(timeout):
                await self.state_changed.wait()
        except TimeoutError:
            return False
        self.state_changed.clear()
        return True

    def connect(self, worker: ChildProcess) -> None:
        """Connect this process and a model worker; do nothing if one of them is ending.

        Raises:
            OSError: there are no descriptors for a connection.
        """
        own_end, worker_end = socket.socketpair()
        try:
            worker.send_fd(worker_end, self.number)
            self.send_fd(own_end, worker.number)
            self.connected_workers.add(worker.number)
        except OSError as error:
            logger.debug(
                "HTTP worker %s: no connection to worker %s: %s", self.pid, worker.pid, error
            )
        finally:
            own_end.close()
            worker_end.close()
