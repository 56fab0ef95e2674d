"""Read-only replica of the registry and of the list of model workers in an HTTP worker process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from ..metrics.server_metrics import ServerMetrics
from ..parallel.remote_model import RemoteModel, WorkerGroup
from ..parallel.rpc.client import RPCClient
from ..parallel.rpc.fd_passing import receive_fds
from ..parallel.rpc.protocol import Frame
from ..registry import ModelPipeline, ModelRegistryView, ModelVersion, PipelineBuilder
from ..registry.traffic_split import read_traffic_split
from ..types import State
from .snapshot import ModelSnapshot, StateSnapshot


class ReplicaWorkerGroup(WorkerGroup[RPCClient]):
    """The model workers of one pool that this process is connected to."""

    def replace(self, clients: list[RPCClient]) -> None:
        if clients != self._ready:
            self._ready = clients
            self._announce()

    def remove(self, client: RPCClient) -> None:
        if client in self._ready:
            self._ready.remove(client)
            self._record_death()


class WorkerClient(RPCClient):
    """A connection to a model worker. The worker sends only answers: metrics go to the server.

    Args:
        number: The worker's number.
        on_lost: Called when the connection is closed.
    """

    def __init__(self, number: int, on_lost: Callable[[WorkerClient], None]) -> None:
        super().__init__(_ignore_notification)
        self.number = number
        self._on_lost = on_lost

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self._on_lost(self)


def _ignore_notification(frame: Frame) -> None:
    """A worker sends notifications to the server only."""


class WorkerConnections:
    """Connections to the model workers, by worker number.

    Args:
        control_socket: Receives the connections from the server.
        index: Number of this HTTP worker: it rotates the workers, so that several HTTP workers
            pick different ones while all are idle.
        on_worker_lost: Called with the number of a worker when the connection to it closes.
    """

    def __init__(
        self, control_socket: socket.socket, index: int, on_worker_lost: Callable[[int], None]
    ) -> None:
        self._control_socket = control_socket
        self._index = index
        self._on_worker_lost = on_worker_lost
        self._clients: dict[int, WorkerClient] = {}
        self._groups: dict[int, ReplicaWorkerGroup] = {}
        self._draining: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[WorkerClient] = set()

    def group(self, pool: int) -> WorkerGroup[RPCClient]:
        return self._groups.setdefault(pool, ReplicaWorkerGroup())

    async def update(self, workers: Sequence[tuple[int, int, list[str]]]) -> None:
        """Use these workers; disconnect from others once their calls are answered.

        Args:
            workers: See `StateSnapshot`.
        """
        for number, end in receive_fds(self._control_socket):
            client = WorkerClient(number, self._remove)
            await client.open(end)
            self._clients[number] = client
        pools: dict[int, list[RPCClient]] = {pool: [] for pool in self._groups}
        for number, pool, keys in workers:
            connected = self._clients.get(number)
            if connected is not None and not connected.is_gone:
                connected.model_keys = set(keys)
                pools.setdefault(pool, []).append(connected)
        for pool, clients in pools.items():
            start = self._index % len(clients) if clients else 0
            group = self._groups.setdefault(pool, ReplicaWorkerGroup())
            group.replace(clients[start:] + clients[:start])
        current = {number for number, _, _ in workers}
        for number in self._clients.keys() - current:
            task = asyncio.get_running_loop().create_task(self._drain(number))
            self._draining[number] = task

    async def wait_released(self, number: int) -> None:
        """Wait until the calls to a removed worker, and its streams, have ended."""
        if (draining := self._draining.get(number)) is not None:
            await asyncio.shield(draining)

    def find_overdue(self, now: float) -> list[WorkerClient]:
        """Return the connections with a call that has exceeded its limit."""
        clients = [*self._clients.values(), *self._leaving]
        return [client for client in clients if client.has_overdue_call(now)]

    async def _drain(self, number: int) -> None:
        client = self._clients.pop(number)
        self._leaving.add(client)
        try:
            await client.wait_idle()
            client.close()
        finally:
            self._leaving.discard(client)
            del self._draining[number]

    def _remove(self, client: WorkerClient) -> None:
        for group in self._groups.values():
            group.remove(client)
        if self._clients.get(client.number) is client:
            self._on_worker_lost(client.number)


class ReplicaRegistry(ModelRegistryView):
    """The server's registry as of the last snapshot.

    Args:
        workers: Connections to the workers that run the models.
        build_pipeline: Builds the pipeline of a model.
        metrics: Registers the series of each model.
    """

    def __init__(
        self, workers: WorkerConnections, build_pipeline: PipelineBuilder, metrics: ServerMetrics
    ) -> None:
        super().__init__()
        self._workers = workers
        self._build_pipeline = build_pipeline
        self._metrics = metrics
        self._by_serial: dict[int, ModelVersion] = {}
        self._draining: dict[str, ModelPipeline] = {}

    def by_serial(self) -> dict[int, ModelVersion]:
        return dict(self._by_serial)

    def update(self, snapshot: StateSnapshot) -> None:
        """Replace all models by those of a snapshot."""
        before, self._by_serial = self._by_serial, {}
        for serial in before.keys() - {model.serial for model in snapshot.models}:
            entry = before[serial]
            self._metrics.remove_model(entry.name, entry.version)
            self._unload(entry)
            entry.state = State.UNLOADING
        self._entries.clear()
        for model in snapshot.models:
            entry = before.get(model.serial) or self._add(model)
            self._by_serial[model.serial] = entry
            self._entries.setdefault(entry.name, {})[entry.version] = entry
            if _get_key(entry) != model.key:
                self._unload(entry)
                self._load(entry, model)
            entry.state, entry.reason = model.state, model.reason
        self._defaults.clear()
        self.generation += 1
        for name in self._entries:
            self._choose_default(name)
        self.missing = set(snapshot.missing)

    async def wait_released(self, key: str) -> None:
        """Wait until in-flight requests to an unloaded or replaced model have finished."""
        pipeline = self._draining.get(key)
        if pipeline is not None:
            await pipeline.drained()
            self._draining.pop(key, None)

    async def drained(self) -> None:
        draining = [pipeline.drained() for pipeline in self._draining.values()]
        await asyncio.gather(super().drained(), *draining)

    def _add(self, model: ModelSnapshot) -> ModelVersion:
        assert model.settings is not None
        settings = model.settings
        metrics = self._metrics.for_model(settings.name, settings.version)
        entry = ModelVersion(settings, metrics, serial=model.serial)
        self._metrics.add_model(entry.name, entry.version)
        return entry

    def _load(self, entry: ModelVersion, model: ModelSnapshot) -> None:
        if model.key is None:
            return
        assert model.settings is not None
        assert model.info is not None
        group = self._workers.group(model.pool)
        loaded = ReplicaModel(group, model.key, model.info, model.limit)
        entry.settings = model.settings
        entry.configured_split = read_traffic_split(model.settings)
        entry.pipeline = self._build_pipeline(entry, loaded)
        entry.loaded = loaded

    def _unload(self, entry: ModelVersion) -> None:
        key = _get_key(entry)
        if key is not None and entry.pipeline is not None:
            self._draining[key] = entry.pipeline
        entry.loaded = None


class ReplicaModel(RemoteModel):
    """A model that the server's process loads and unloads."""

    async def unload(self) -> bool:
        return True


def _get_key(entry: ModelVersion) -> str | None:
    return entry.loaded.key if isinstance(entry.loaded, RemoteModel) else None
