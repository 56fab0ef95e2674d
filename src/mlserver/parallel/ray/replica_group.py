"""The server's connections to the replicas of one application, and the proxy of its model."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import metrics
from ...errors import MLServerError, Unavailable
from ...logging import get_logger
from ...version import __version__
from ..executor import ModelInfo
from ..remote_model import RemoteModel, WorkerGroup
from ..rpc.client import RPCClient, WorkerDied
from ..rpc.protocol import Frame, MessageType
from .handshake import TIMEOUT, prove_server
from .tcp import SILENCE_SECONDS, is_silent, set_tcp_options

logger = get_logger()

# Seconds between two tries to connect to a replica.
RETRY_INTERVAL = 1.0
PING_TIMEOUT = 1.0
# Seconds between two requests for a first replica, while requests wait for one.
WAKE_INTERVAL = 1.0
SILENT = "No replica of the model is alive, and the Ray cluster does not answer to start one"


class ReplicaClient(RPCClient):
    """A connection to a replica.

    Args:
        replica: The replica's id in the directory.

    Attributes:
        description: The replica's answer to INIT.
        left: Set when the replica is draining or has disconnected: send no further requests.
        is_leaving: Whether the replica has announced its end.
        end_reason: Why the connection has ended, for the log; "" = it has not.
    """

    def __init__(self, replica: str) -> None:
        super().__init__(self._on_message)
        self.replica = replica
        self.description: dict[str, Any] = {}
        self.left = asyncio.Event()
        self.is_leaving = False
        self.end_reason = ""
        self._end: socket.socket | None = None

    async def connect(self, host: str, port: int, secret: bytes) -> None:
        """Connect, authenticate and read the description.

        Raises:
            OSError, TimeoutError, WorkerDied: the replica cannot be reached.
            MLServerError: it has another version of mlserver.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        end = socket.socket(family, socket.SOCK_STREAM)
        try:
            set_tcp_options(end)
            async with asyncio.timeout(TIMEOUT):
                await asyncio.get_running_loop().sock_connect(end, (host, port))
            await prove_server(end, secret)
            await self.open(end)
            self._end = end
            async with asyncio.timeout(TIMEOUT):
                self.description = (await self.call(MessageType.INIT, None)).head
        except BaseException:
            self.close()
            end.close()
            raise
        if self.description["version"] != __version__:
            self.close()
            raise MLServerError(
                f"Replica {host}:{port}: expected mlserver {__version__}, received "
                f"{self.description['version']}: install one version on all nodes",
                500,
            )
        self.model_keys = {self.description["key"]}

    async def call(
        self,
        kind: MessageType,
        head: Any,
        buffers: Sequence[Any] = (),
        kill_after: float | None = None,
    ) -> Frame:
        if kind is MessageType.INFER and head[1] is not None:
            # Clocks of two machines differ: the replica receives the seconds left.
            head = [head[0], head[1] - time.monotonic(), *head[2:]]
        return await super().call(kind, head, buffers, kill_after)

    def end_if_silent(self) -> None:
        """End the connection if the replica's host acknowledges nothing."""
        if self._end is not None and is_silent(self._end):
            self.end_reason = f"its host has acknowledged nothing for {SILENCE_SECONDS} s"
            self.abort()

    async def check(self) -> None:
        """Ping the replica; end the connection if it does not answer."""
        try:
            if await self.is_reacting(PING_TIMEOUT):
                return
        except WorkerDied:
            return
        logger.error(
            "Replica %s does not react in a request past its time limit: disconnected",
            self.replica,
        )
        self.end_reason = "the replica does not react"
        self.abort()

    def _on_message(self, frame: Frame) -> None:
        if frame.kind == MessageType.METRICS:
            metrics.receive(metrics.Sample(*frame.head))
        elif frame.kind == MessageType.LEAVING:
            self.is_leaving = True
            self.left.set()

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self.end_reason = self.end_reason or str(reason or "closed")
        self.left.set()


class ReplicaGroup(WorkerGroup[ReplicaClient]):
    """Connections to all replicas of an application.

    Args:
        application: Name of the Serve application.
        wake: Starts a first replica of an application scaled to zero; None = never scaled to zero.
        is_answered: Returns whether the cluster answers.

    Attributes:
        secret: Of the cluster's directory.
        details: Details of the application in the directory; None = not reported yet.
    """

    unavailable_message = "No replica of the model is alive in the Ray cluster; Ray starts another"

    def __init__(
        self,
        application: str,
        wake: Callable[[], None] | None,
        is_answered: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.application = application
        self.secret = b""
        self.details: dict[str, Any] | None = None
        self._wake = wake
        self._is_answered = is_answered
        self._known: dict[str, Sequence[Any]] = {}
        self._connections: dict[str, asyncio.Task[None]] = {}
        # Those that leave and still run calls are in it, and not in `_ready`.
        self._connected: set[ReplicaClient] = set()
        self._is_closed = False
        self._warned_nodes: set[str] = set()

    @property
    def can_wake(self) -> bool:
        """Whether a request makes Ray start a first replica."""
        return self._wake is not None and self._is_answered()

    @property
    def clients(self) -> list[ReplicaClient]:
        return list(self._ready)

    @property
    def first_info(self) -> ModelInfo | None:
        """Properties of the model, from a replica or, if none is alive, the directory."""
        if self._ready:
            return ModelInfo.from_plain(dict(self._ready[0].description["info"]))
        if self.details is not None:
            return ModelInfo.from_plain(dict(self.details["info"]))
        return None

    def update(self, replicas: Mapping[str, Sequence[Any]]) -> None:
        """Connect to new replicas of the directory.

        Replicas without an entry keep their connections: an open connection is better evidence
        that a replica runs than its entry.
        """
        self._known = dict(replicas)
        for replica in replicas.keys() - self._connections.keys():
            task = asyncio.get_running_loop().create_task(self._connect(replica))
            self._connections[replica] = task

    async def _connect(self, replica: str) -> None:
        """Connect to a replica, and reconnect, while the directory lists it."""
        level = logging.DEBUG
        try:
            while replica in self._known and not self._is_closed:
                client = ReplicaClient(replica)
                host, port = self._known[replica]
                try:
                    await client.connect(host, port, self.secret)
                except (OSError, TimeoutError, WorkerDied, MLServerError) as error:
                    client.close()
                    log = logger.error if isinstance(error, MLServerError) else logger.debug
                    log("Replica %s:%s: no connection: %s", host, port, error or "timeout")
                    await asyncio.sleep(RETRY_INTERVAL)
                    continue
                self._warn_of_differences(client)
                name = f"Replica {host}:{port} of '{self.application}'"
                logger.log(level, "%s: connected", name)
                # Random position: several servers then prefer different idle replicas.
                self._ready.insert(random.randint(0, len(self._ready)), client)
                self._announce()
                await self._serve(client)
                if client.end_reason and not client.is_leaving:
                    logger.warning("%s: the connection has ended: %s", name, client.end_reason)
                    level = logging.INFO
                await asyncio.sleep(RETRY_INTERVAL)
        finally:
            self._connections.pop(replica, None)

    def _warn_of_differences(self, client: ReplicaClient) -> None:
        """Log the packages of a node that have another version, once for each node."""
        node, differences = client.description["node"], client.description["differences"]
        if differences and node not in self._warned_nodes:
            self._warned_nodes.add(node)
            logger.warning(
                "Application '%s': node '%s' has other versions of packages: %s",
                self.application,
                node,
                "; ".join(differences),
            )

    async def _serve(self, client: ReplicaClient) -> None:
        self._connected.add(client)
        try:
            await client.left.wait()
        finally:
            self._ready.remove(client)
            if not client.is_gone and not self._is_closed:
                self._known.pop(client.replica, None)  # it is draining: do not reconnect
                await client.wait_idle()
            self._connected.discard(client)
            client.close()

    async def pick_worker(self, key: str) -> ReplicaClient:
        if self._ready or self._wake is None:
            return await super().pick_worker(key)
        # The scheduler ends the wait at the request's deadline.
        while not self._ready and self._is_answered():
            self._wake()  # again: the replica that it has started may have ended meanwhile
            await self.wait_changed(WAKE_INTERVAL)
        try:
            return await super().pick_worker(key)
        except Unavailable:
            raise Unavailable(self.unavailable_message if self._is_answered() else SILENT) from None

    async def wait_changed(self, timeout: float) -> None:
        """Return when a replica has connected, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return

    def notify(self) -> None:
        """Notify the waiters of a change other than a connection."""
        self._announce()

    async def check_connections(self) -> None:
        """Disconnect from silent hosts, and from replicas that answer no ping past a time limit."""
        for client in self._connected:
            client.end_if_silent()
        now = time.monotonic()
        overdue = [client for client in self._connected if client.has_overdue_call(now)]
        await asyncio.gather(*(client.check() for client in overdue))

    async def close(self) -> None:
        self._is_closed = True
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class RayModel(RemoteModel):
    """A model in the replicas of an application.

    Args:
        unload: Ends this server's use of the application.
    """

    unavailable_reason = "no replica of the model is alive in the Ray cluster"

    def __init__(
        self,
        group: ReplicaGroup,
        key: str,
        info: ModelInfo,
        limit: float | None,
        unload: Callable[[RayModel], Any],
    ) -> None:
        super().__init__(group, key, info, limit)
        self.group = group
        self._unload = unload

    @property
    def available(self) -> bool:
        return self.group.can_wake or super().available

    async def unload(self) -> bool:
        return bool(await self._unload(self))
