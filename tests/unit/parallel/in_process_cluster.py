"""A cluster in this process: a real directory and real replicas, without Ray."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from mlserver.errors import MLServerError
from mlserver.parallel.executor import ModelInfo
from mlserver.parallel.ray.agent import ClusterAgent
from mlserver.parallel.ray.directory import Directory
from mlserver.parallel.ray.executor import RayExecutor
from mlserver.parallel.ray.listener import ReplicaListener
from mlserver.parallel.rpc.protocol import Frame, MessageType
from mlserver.parallel.worker.model_runner import ModelRunner
from mlserver.settings import ModelSettings, Settings
from mlserver.version import __version__

KEY = "m#ray"


class Replica:
    """A port with one model."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def start(self, settings: ModelSettings) -> ModelInfo:
        self._runner = ModelRunner()
        self.info = await self._runner.load(KEY, settings)
        self.listener = ReplicaListener(self._runner, self._secret, self._describe, 1)
        self.address = await self.listener.open("127.0.0.1")
        return self.info

    def _describe(self) -> dict[str, Any]:
        return {
            "key": KEY,
            "info": self.info.to_plain(),
            "version": __version__,
            "node": "here",
            "differences": [],
        }


class InProcessCluster:
    """The agent's `Cluster`, with a directory and replicas in this process.

    Attributes:
        calls: Methods of the directory that were called.
        deleted: Applications that were deleted.
        restarts_after: Calls after which the directory restarts, empty.
        on_call: Called after each call of the directory, in a thread, with its name.
    """

    load_timeout: float | None = 30.0

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._directory = Directory(self._secret.hex())
        self._replicas: dict[str, Replica] = {}
        self.calls: list[str] = []
        self.deleted: list[str] = []
        self.restarts_after: set[str] = set()
        self.on_call: Callable[[str], None] = lambda method: None
        self._loop = asyncio.get_running_loop()

    @property
    def models(self) -> dict[str, Any]:
        """Model -> its current application."""
        models = self._directory.poll("test", [])["models"]
        return {model: values[0] for model, values in models.items()}

    def call(self, method: str, *arguments: Any) -> Any:
        time.sleep(0.01)  # the answer takes time, in which other calls begin
        self.calls.append(method)
        answer = getattr(self._directory, method)(*arguments)
        if method in self.restarts_after:
            self.restarts_after.discard(method)
            self._directory = Directory(self._secret.hex())
        self.on_call(method)
        return answer

    def deploy(self, application: str, options: dict[str, Any], settings: bytes) -> None:
        replica = self._replicas[application] = Replica(self._secret)
        work = replica.start(ModelSettings.from_frame(settings))
        info = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        details = {"info": info.to_plain(), "source": None}
        self._directory.register(application, application, replica.address, details)

    def list_applications(self) -> dict[str, str]:
        self.on_call("list_applications")
        return dict.fromkeys(self._replicas, "")

    def delete(self, application: str) -> None:
        self.deleted.append(application)
        self._directory.forget(application)
        replica = self._replicas.pop(application)
        asyncio.run_coroutine_threadsafe(replica.listener.leave(0), self._loop).result()

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.listener.leave(0)


class AgentInProcess:
    """The agent of one server, in place of its process: calls, and states of the cluster."""

    def __init__(self, cluster: InProcessCluster, executor: RayExecutor) -> None:
        self.agent = ClusterAgent()
        self._executor = executor
        self.agent._cluster = cluster  # type: ignore[assignment]
        self.agent._connection = self  # type: ignore[assignment]
        self.agent._server = executor._server
        self.agent._secret = cluster._secret.hex()

    async def call(self, kind: MessageType, head: Any) -> Frame:
        assert kind is MessageType.CLUSTER
        try:
            return await self.agent._run(Frame(kind, 1, head))
        except OSError as error:  # the dispatcher sends every error as one of this class
            raise MLServerError(str(error), 500) from None

    def send(self, frame: Frame) -> None:
        self._executor._agent._on_notification(frame)


class ClusterServer:
    """The executor of one server, connected to a cluster."""

    def __init__(self, cluster: InProcessCluster, **settings: Any) -> None:
        self.executor = RayExecutor(Settings(engine="ray", **settings))
        self.connection = AgentInProcess(cluster, self.executor)
        self.executor._agent._process = self.connection  # type: ignore[assignment]
        self.executor._agent._connected.set()

    async def poll(self) -> None:
        """Read the directory once, as the agent does every half second."""
        await self.connection.agent._poll()

    async def close(self) -> None:
        await self.executor._follower.stop()
        for group in list(self.executor._groups.values()):
            await group.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
