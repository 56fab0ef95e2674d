"""The server's side of the agent: starts it, calls it, and restarts it when it exits."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from ...env.environment import own_paths
from ...errors import MLServerError
from ...logging import get_logger
from ...settings import Settings
from ..child_process import ChildProcess
from ..processes.launchers import InterpreterLauncher
from ..rpc.client import WorkerDied
from ..rpc.protocol import Frame, MessageType

logger = get_logger()

# Seconds to connect to a cluster.
CONNECT_TIMEOUT = 120.0
# Seconds that a call may take whose caller has no time limit of its own, the wait for a connection
# included: more than the agent's calls of the directory may (`cluster.CALL_TIMEOUT`).
CALL_LIMIT = 15.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 10.0


class AgentProcess:
    """Runs an agent that is connected to the cluster, and restarts it when it exits.

    Args:
        settings: The server's settings.
        describe: Returns the head of INIT: the applications and models of this server.
        on_state: Called with each state of the cluster that differs from the last.

    Attributes:
        is_answered: Whether the cluster has answered the agent's last poll.
    """

    def __init__(
        self,
        settings: Settings,
        describe: Callable[[], dict[str, Any]],
        on_state: Callable[[dict[str, Any]], None],
    ) -> None:
        self._settings = settings
        self._describe = describe
        self._on_state = on_state
        self._process: ChildProcess | None = None
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_answered = False

    @property
    def is_connected(self) -> bool:
        """Whether an agent runs that has connected."""
        return self._connected.is_set()

    def start(self) -> None:
        """Start the first agent; return before it is connected."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def call(self, name: str, *arguments: Any) -> Any:
        """Run a call of the agent within `CALL_LIMIT` seconds.

        Raises:
            MLServerError: the call failed, or the cluster does not answer (504).
        """
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return await self.call_unlimited(name, *arguments)
        except TimeoutError:
            raise MLServerError(
                f"The Ray cluster does not answer: call '{name}' exceeded {CALL_LIMIT:g} s; the "
                "log has the state of the connection: try again when there is one",
                504,
            ) from None

    async def call_unlimited(self, name: str, *arguments: Any) -> Any:
        """Run a call of the agent, after it has connected; retry if the agent exits.

        For callers with a time limit of their own: without a cluster, it waits for one.

        Raises:
            MLServerError: the call failed.
        """
        while True:
            await self._connected.wait()
            assert self._process is not None
            try:
                frame = await self._process.call(MessageType.CLUSTER, [name, *arguments])
            except WorkerDied:
                await asyncio.sleep(0)
                continue
            return frame.head

    async def stop(self, grace: float, deletes: bool) -> None:
        """End this server's use of the cluster, and the agent, within `grace` seconds each.

        Args:
            deletes: Whether applications that no other server uses are deleted.
        """
        if self._connected.is_set():
            try:
                async with asyncio.timeout(grace):
                    await self.call_unlimited("leave", deletes)
            except (TimeoutError, MLServerError) as error:
                logger.warning("Ray: leaving the cluster failed: %s", error or "timeout")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            await self._process.stop(grace)

    # -- the process --

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._connect()
                pause = FIRST_PAUSE
                await self._ended.wait()
                logger.warning("Ray: the agent has ended; starting another")
            except (MLServerError, WorkerDied, OSError, TimeoutError) as error:
                reason = "the agent has ended" if isinstance(error, WorkerDied) else str(error)
                logger.warning(
                    "Ray: %s; next attempt in %.0f s", reason or "no connection in time", pause
                )
            self._connected.clear()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connect(self) -> None:
        """Start an agent and wait until it is connected.

        Raises:
            MLServerError: it cannot connect.
            WorkerDied, TimeoutError, OSError: it cannot be started.
        """
        variables = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, "-m", "mlserver.parallel.ray.agent"]
        self._ended.clear()
        self._process = process = ChildProcess(
            InterpreterLauncher(command, variables),
            lambda _: self._on_exit(),
            self._on_notification,
        )
        init = {
            "settings": self._settings.to_frame(),
            "sys_path": own_paths(),
            **self._describe(),
        }
        try:
            await process.start(init, CONNECT_TIMEOUT)
        except BaseException:
            process.kill()
            await asyncio.shield(process.reap())
            raise
        self._connected.set()

    def _on_exit(self) -> None:
        self.is_answered = False
        self._connected.clear()
        self._ended.set()

    def _on_notification(self, frame: Frame) -> None:
        if frame.kind == MessageType.CLUSTER_STATE:
            self.is_answered = frame.head is not None
            if self.is_answered:
                self._on_state(frame.head)
