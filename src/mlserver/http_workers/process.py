"""One further front end process as the server's own sees it: what it has been told, and the lines it has."""

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
from ..parallel.rpc.client import WorkerDied
from ..parallel.rpc.dispatcher import RPCDispatcher, RPCHandler
from ..parallel.rpc.protocol import Frame, MessageType

logger = get_logger()


class HTTPWorkerProcess(ChildProcess):
    """One further front end, and what it has been told.

    Args:
        index: Its place; a successor has the same.
        actions: Answer what it asks.
        on_exit: Called once when it is gone.
        on_notification: Called with whatever else it says.

    Attributes:
        is_open: Whether it listens.
        told: Revision of the last table that it took; -1 = none yet.
        known: Keys of the models that it has heard all about.
        connected: Numbers of the workers that it has a line to.
        counts: What it said last when it was asked what it counted.
    """

    def __init__(
        self,
        index: int,
        actions: Mapping[int, RPCHandler],
        on_exit: Callable[[HTTPWorkerProcess], None],
        on_notification: Callable[[HTTPWorkerProcess, Frame], None],
    ) -> None:
        dispatcher = RPCDispatcher(actions, self.send)

        def take(frame: Frame) -> None:
            if not dispatcher.dispatch(frame):
                on_notification(self, frame)

        command = [sys.executable, "-m", "mlserver.http_workers.worker"]
        super().__init__(command, os.environ, lambda _: on_exit(self), take, accepts_fds=True)
        self.index = index
        self.born = time.monotonic()
        self.is_open = False
        self.told = -1
        self.known: set[str] = set()
        self.connected: set[int] = set()
        self.counts: dict[str, Any] = {"metrics": {}, "statistics": []}
        self.news = asyncio.Event()
        self.news.set()

    async def ask(self, kind: MessageType, head: Any, limit: float | None) -> Any:
        """Its answer; None if there is none within `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                return (await self.call(kind, head)).head
        except (WorkerDied, MLServerError, TimeoutError):
            return None

    def connect(self, worker: ChildProcess) -> None:
        """Give this process and a worker a line to each other. None, if one of them is about to end."""
        ends = socket.socketpair()
        try:
            worker.send_fd(ends[0], self.number)
            self.send_fd(ends[1], worker.number)
            self.connected.add(worker.number)
        except OSError as error:
            logger.debug("No line from front end %s to worker %s: %s", self.pid, worker.pid, error)
        finally:
            for end in ends:
                end.close()
