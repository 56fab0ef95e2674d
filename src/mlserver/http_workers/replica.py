"""What a further front end process knows: models that others load, and workers that others start."""

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
    """The workers of one pool that this process has a line to."""

    def replace(self, lines: list[RPCClient]) -> None:
        if lines != self._ready:
            self._ready = lines
            self._announce()

    def drop(self, line: RPCClient) -> None:
        if line in self._ready:
            self._ready.remove(line)


class WorkerClient(RPCClient):
    """A line to a worker. It hears nothing but answers: what models log goes to the server.

    Args:
        number: The worker's.
        on_gone: Told when the line is broken.
    """

    def __init__(self, number: int, on_gone: Callable[[WorkerClient], None]) -> None:
        super().__init__(_ignore)
        self.number = number
        self._on_gone = on_gone

    def _on_closed(self, reason: Exception | None) -> None:
        super()._on_closed(reason)
        self._on_gone(self)


def _ignore(frame: Frame) -> None:
    """Nobody wants it."""


class WorkerConnections:
    """Lines to the workers, by the workers' numbers.

    Args:
        post: Where the server hands lines over.
        first: Which worker to ask first where all are idle; so several front ends spread.
        lost: Told the number of a worker when the line to it breaks.
    """

    def __init__(
        self, control_socket: socket.socket, first: int, lost: Callable[[int], None]
    ) -> None:
        self._control_socket = control_socket
        self._first = first
        self._lost = lost
        self._lines: dict[int, WorkerClient] = {}
        self._groups: dict[int, ReplicaWorkerGroup] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}

    def group(self, pool: int) -> WorkerGroup[RPCClient]:
        return self._groups.setdefault(pool, ReplicaWorkerGroup())

    async def update(self, rows: Sequence[tuple[int, int, list[str]]]) -> None:
        """From now on these are the workers; others are left when they have answered what they were asked."""
        for number, end in receive_fds(self._control_socket):
            line = WorkerClient(number, self._forget)
            await line.open(end)
            self._lines[number] = line
        pools: dict[int, list[RPCClient]] = {pool: [] for pool in self._groups}
        for number, pool, keys in rows:
            known = self._lines.get(number)
            if known is not None and not known.is_gone:
                known.model_keys = set(keys)
                pools.setdefault(pool, []).append(known)
        for pool, lines in pools.items():
            at = self._first % len(lines) if lines else 0
            self._groups.setdefault(pool, ReplicaWorkerGroup()).replace(lines[at:] + lines[:at])
        for number in self._lines.keys() - {number for number, _, _ in rows}:
            self._leaving[number] = asyncio.get_running_loop().create_task(self._leave(number))

    async def left(self, number: int) -> None:
        """Return when nothing is asked of a worker that is in the table no more."""
        if (leaving := self._leaving.get(number)) is not None:
            await asyncio.shield(leaving)

    def overdue(self, now: float) -> list[int]:
        """Workers with a call that has outlived its limit."""
        return [number for number, line in self._lines.items() if line.has_overdue_call(now)]

    async def _leave(self, number: int) -> None:
        line = self._lines.pop(number)
        try:
            await line.wait_idle()
            line.close()
        finally:
            del self._leaving[number]

    def _forget(self, line: WorkerClient) -> None:
        for group in self._groups.values():
            group.drop(line)
        if self._lines.get(line.number) is line:
            self._lost(line.number)


class ReplicaRegistry(ModelRegistryView):
    """The server's registry as this process sees it: each table replaces what the last one said.

    Args:
        workers: Run the models.
        build_road: Makes the road of a model.
        metrics: Has series for what is known here.
    """

    def __init__(
        self, workers: WorkerConnections, build_pipeline: PipelineBuilder, metrics: ServerMetrics
    ) -> None:
        super().__init__()
        self._workers = workers
        self._build_pipeline = build_pipeline
        self._metrics = metrics
        self._by_serial: dict[int, ModelVersion] = {}
        self._leaving: dict[str, ModelPipeline] = {}

    def by_serial(self) -> dict[int, ModelVersion]:
        return dict(self._by_serial)

    def update(self, table: StateSnapshot) -> None:
        """From now on these are the models."""
        before, self._by_serial = self._by_serial, {}
        for serial in before.keys() - {row.serial for row in table.rows}:
            entry = before[serial]
            self._metrics.remove_model(entry.name, entry.version)
            self._unload(entry)
            entry.state = State.UNLOADING
        self._entries.clear()
        for row in table.rows:
            entry = before.get(row.serial) or self._announce(row)
            self._by_serial[row.serial] = entry
            self._entries.setdefault(entry.name, {})[entry.version] = entry
            if _key_of(entry) != row.key:
                self._unload(entry)
                self._load(entry, row)
            entry.state, entry.reason = row.state, row.reason
        self._defaults.clear()
        self.generation += 1
        for name in self._entries:
            self._choose_default(name)
        self.missing = set(table.missing)

    async def left(self, key: str) -> None:
        """Return when nothing is asked of a model that was unloaded or replaced."""
        pipeline = self._leaving.get(key)
        if pipeline is not None:
            await pipeline.drained()
            self._leaving.pop(key, None)

    async def drained(self) -> None:
        await asyncio.gather(
            super().drained(), *(pipeline.drained() for pipeline in self._leaving.values())
        )

    def _announce(self, row: ModelSnapshot) -> ModelVersion:
        assert row.settings is not None
        settings = row.settings
        metrics = self._metrics.for_model(settings.name, settings.version)
        entry = ModelVersion(settings, metrics, serial=row.serial)
        self._metrics.add_model(entry.name, entry.version)
        return entry

    def _load(self, entry: ModelVersion, row: ModelSnapshot) -> None:
        if row.key is None:
            return
        assert row.settings is not None
        assert row.info is not None
        loaded = ReplicaModel(self._workers.group(row.pool), row.key, row.info, row.limit)
        entry.settings, entry.configured_split = row.settings, read_traffic_split(row.settings)
        entry.pipeline = self._build_pipeline(entry, loaded)
        entry.loaded = loaded

    def _unload(self, entry: ModelVersion) -> None:
        key = _key_of(entry)
        if key is not None and entry.pipeline is not None:
            self._leaving[key] = entry.pipeline
        entry.loaded = None


class ReplicaModel(RemoteModel):
    """A model that the server loaded, and that it unloads."""

    async def unload(self) -> bool:
        return True


def _key_of(entry: ModelVersion) -> str | None:
    return entry.loaded.key if isinstance(entry.loaded, RemoteModel) else None
