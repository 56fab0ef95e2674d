"""A worker process: reads frames, lets the runner do what they ask, writes the answers.

Started by the pool as `python -m mlserver.parallel.worker.worker FD`. It ends when the server's end of the channel closes, and
the kernel ends it should the server be killed. It never imports a front end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ... import isolation
from ...errors import MLServerError
from ...logging import configure_logger, get_logger
from ...security import code_policy
from ...settings import ModelSettings, Settings
from ...tracing import get_tracer_provider, set_global_provider
from ..child_main import extend_sys_path, run_child
from ..rpc.dispatcher import RPCHandler
from ..rpc.fd_passing import control_socket_from_fd, receive_fds
from ..rpc.protocol import Frame, MessageType
from .model_runner import ModelRunner
from .session import PeerSession

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = get_logger()

# Container objects that are made between two looks of the collector; Python's own 700 are less than one batch makes.
GC_THRESHOLD = 20_000


class Worker:
    """Models, and the processes that may ask for them: the server's own, and its further front ends.

    Only the server's own loads and unloads, and hears what models log.
    """

    def __init__(self) -> None:
        self._runner = ModelRunner()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        own: dict[int, RPCHandler] = {
            MessageType.INIT: self._init,
            MessageType.LOAD: self._load,
            MessageType.UNLOAD: self._unload,
        }
        self._server = PeerSession(self._runner, own)
        self._tracing: TracerProvider | None = None
        self._peers: set[asyncio.Task[None]] = set()

    async def serve(self, end: socket.socket) -> None:
        """Work until the channel closes."""
        await self._server.open(end)
        self._server.send(Frame(MessageType.READY, 0, {"pid": os.getpid()}))
        await self._server.closed()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown)

    async def _init(self, frame: Frame) -> Frame:
        settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        code_policy.apply(settings)
        extend_sys_path(frame.head["sys_path"])
        isolation.restrict(frame.head["may_load"])
        from ... import metrics

        metrics.set_sink(self._send_metric)
        metrics.adapt_when_imported()
        if settings.tracing_server:
            self._start_tracing(settings)
        if "post" in frame.head:
            control_socket = control_socket_from_fd(frame.head["post"])
            self._loop.add_reader(control_socket, self._accept_peer, control_socket)
        return Frame(MessageType.REPLY, frame.id, None)

    def _start_tracing(self, settings: Settings) -> None:
        """Spans of the models' own code; without the libraries (in an environment of a model's) there are none."""
        try:
            self._tracing = get_tracer_provider(settings)
        except MLServerError as error:
            logger.warning("%s", error)
        if self._tracing is not None:
            set_global_provider(self._tracing)
            self._server.traced = True

    def _accept_peer(self, control_socket: socket.socket) -> None:
        """Further front ends begin to ask."""
        for _, end in receive_fds(control_socket):
            task = self._loop.create_task(self._serve_peer(end))
            self._peers.add(task)
            task.add_done_callback(self._peers.discard)

    async def _serve_peer(self, end: socket.socket) -> None:
        guest = PeerSession(self._runner)
        guest.traced = self._server.traced
        await guest.open(end)
        await guest.closed()

    def _send_metric(self, observation: Sequence[object]) -> None:
        """Pass on what a model logs, from whichever thread it does."""
        frame = Frame(MessageType.METRICS, 0, list(observation))
        if threading.get_ident() == self._thread:
            self._server.send(frame)
        else:
            self._loop.call_soon_threadsafe(self._server.send, frame)

    async def _load(self, frame: Frame) -> Frame:
        info = await self._runner.load(
            frame.head["key"], ModelSettings.from_frame(frame.head["settings"])
        )
        # A model's libraries are a million objects that live as long as it does: the collector need not visit them, and
        # requests need not wait for it.
        gc.freeze()
        return Frame(MessageType.REPLY, frame.id, info.to_plain())

    async def _unload(self, frame: Frame) -> Frame:
        done = await self._runner.unload(frame.head["key"])
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return Frame(MessageType.REPLY, frame.id, done)


async def _serve(end: socket.socket) -> None:
    await Worker().serve(end)


def main() -> None:
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    run_child(_serve)


if __name__ == "__main__":
    main()
