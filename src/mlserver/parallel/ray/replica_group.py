"""The server's connections to the replicas of one application, and the proxy of its model."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import metrics
from ...errors import MLServerError
from ...logging import get_logger
from ...version import __version__
from ..executor import ModelInfo
from ..remote_model import RemoteModel, WorkerGroup
from ..rpc.client import RPCClient, WorkerDied
from ..rpc.protocol import Frame, MessageType
from .handshake import TIMEOUT, prove_server

logger = get_logger()

# Seconds between two tries to connect to a replica.
RETRY_INTERVAL = 1.0
PING_TIMEOUT = 1.0
# A node without network sends no FIN or RST: the kernel closes its connections after this time.
SILENCE_SECONDS = 6
_KEEP_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}


class ReplicaClient(RPCClient):
    """A connection to a replica.

    Args:
        replica: The replica's id in the directory.

    Attributes:
        description: The replica's answer to INIT.
        left: Set when the replica is draining or has disconnected: send no further requests.
    """

    def __init__(self, replica: str) -> None:
        super().__init__(self._on_message)
        self.replica = replica
        self.description: dict[str, Any] = {}
        self.left = asyncio.Event()

    async def connect(self, host: str, port: int, secret: bytes) -> None:
        """Connect, authenticate and read the description.

        Raises:
            OSError, TimeoutError, WorkerDied: the replica cannot be reached.
            MLServerError: it has another version of mlserver.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        end = socket.socket(family, socket.SOCK_STREAM)
        try:
            _configure(end)
            async with asyncio.timeout(TIMEOUT):
                await asyncio.get_running_loop().sock_connect(end, (host, port))
            await prove_server(end, secret)
        except BaseException:
            end.close()
            raise
        await self.open(end)
        async with asyncio.timeout(TIMEOUT):
            self.description = (await self.call(MessageType.INIT, None)).head
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

    async def check(self) -> None:
        """Ping the replica; close the connection if it does not answer."""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await self.call(MessageType.PING, None)
        except TimeoutError:
            logger.error(
                "Replica %s does not react in a request past its time limit: disconnected",
                self.replica,
            )
            self.close()
        except WorkerDied:
            return

    def _on_message(self, frame: Frame) -> None:
        if frame.kind == MessageType.METRICS:
            metrics.receive(metrics.Sample(*frame.head))
        elif frame.kind == MessageType.LEAVING:
            self.left.set()

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self.left.set()


def _configure(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


class ReplicaGroup(WorkerGroup[ReplicaClient]):
    """Connections to all replicas of an application.

    Args:
        application: Name of the Serve application.
        wake: Starts a first replica of an application scaled to zero; None = never scaled to zero.

    Attributes:
        secret: Of the cluster's directory.
        details: Details of the application in the directory; None = not reported yet.
    """

    unavailable_message = "No replica of the model is alive in the Ray cluster; Ray starts another"

    def __init__(self, application: str, wake: Callable[[], None] | None) -> None:
        super().__init__()
        self.application = application
        self.secret = b""
        self.details: dict[str, Any] | None = None
        self._wake = wake
        self._known: dict[str, Sequence[Any]] = {}
        self._connections: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        self._warned_nodes: set[str] = set()

    @property
    def can_wake(self) -> bool:
        """Whether a request makes Ray start a first replica."""
        return self._wake is not None

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
        try:
            while replica in self._known and not self._is_closed:
                client = ReplicaClient(replica)
                host, port = self._known[replica]
                try:
                    await client.connect(host, port, self.secret)
                except (OSError, TimeoutError, WorkerDied, MLServerError) as error:
                    client.close()
                    level = logger.error if isinstance(error, MLServerError) else logger.debug
                    level("Replica %s:%s: no connection: %s", host, port, error or "timeout")
                    await asyncio.sleep(RETRY_INTERVAL)
                    continue
                self._warn_of_differences(client)
                # Random position: several servers then prefer different idle replicas.
                self._ready.insert(random.randint(0, len(self._ready)), client)
                self._announce()
                await self._serve(client)
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
        try:
            await client.left.wait()
        finally:
            self._ready.remove(client)
            if not client.is_gone and not self._is_closed:
                self._known.pop(client.replica, None)  # it is draining: do not reconnect
                await client.wait_idle()
            client.close()

    async def pick_worker(self, key: str) -> ReplicaClient:
        if self._ready or self._wake is None:
            return await super().pick_worker(key)
        self._wake()
        while not self._ready:  # the scheduler ends the wait at the request's deadline
            await self._changed.wait()
        return await super().pick_worker(key)

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

    async def check_overdue(self) -> None:
        """Disconnect from replicas that answer no ping during a call past its time limit."""
        now = time.monotonic()
        overdue = [client for client in self._ready if client.has_overdue_call(now)]
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
